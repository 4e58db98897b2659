#![no_main]

zk_fuzz::target!("auth");
