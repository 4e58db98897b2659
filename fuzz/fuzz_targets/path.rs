#![no_main]

zk_fuzz::target!("path");
