#![no_main]

zk_fuzz::target!("watch_event");
