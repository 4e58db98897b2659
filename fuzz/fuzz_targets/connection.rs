#![no_main]

zk_fuzz::target!("connection");
