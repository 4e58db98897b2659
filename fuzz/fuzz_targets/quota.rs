#![no_main]

zk_fuzz::target!("quota");
