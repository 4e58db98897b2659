#![no_main]

zk_fuzz::target!("snapshot");
