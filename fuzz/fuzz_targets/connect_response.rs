#![no_main]

zk_fuzz::target!("connect_response");
