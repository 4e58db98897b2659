#![no_main]

zk_fuzz::target!("writes");
