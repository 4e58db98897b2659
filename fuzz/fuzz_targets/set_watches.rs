#![no_main]

zk_fuzz::target!("set_watches");
