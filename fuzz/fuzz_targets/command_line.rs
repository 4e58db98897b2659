#![no_main]

zk_fuzz::target!("command_line");
