#![no_main]

zk_fuzz::target!("acl_rules");
