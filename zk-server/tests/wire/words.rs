use zk_server::Server;
use zk_server::config::{Config, FourLetterWhitelist, Overrides};

use crate::client::{Wire, create, get, word};
use crate::server;

#[test]
fn words_are_answered_whole_or_in_pieces() {
    let server = server();
    assert_eq!(word(&server, "ruok"), "imok");
    assert_eq!(word(&server, "ruok\n and more"), "imok");
    assert_eq!(word(&server, "isro"), "rw");
    let mut wire = Wire::tcp(&server);
    for letter in b"ruok" {
        wire.send(&[*letter]);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(wire.rest(), b"imok");
}

#[test]
fn a_word_is_answered_after_the_client_has_closed_its_side() {
    let server = server();
    let mut wire = Wire::tcp(&server);
    wire.send(b"srvr");
    wire.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(String::from_utf8(wire.rest()).unwrap().contains("Mode: standalone\n"));
}

#[test]
fn a_word_inside_a_session_is_a_bad_length() {
    let server = server();
    let mut wire = Wire::connect(&server);
    wire.send(b"ruok");
    assert_eq!(wire.rest(), b"");
}

#[test]
fn words_outside_the_whitelist_are_refused() {
    let (config, _) = Config::dev(std::path::Path::new("unused"), 0, &Overrides::default(), false).unwrap();
    let config = Config { four_letter_whitelist: FourLetterWhitelist::Only(Default::default()), ..config };
    let server = Server::builder().memory().config(config).start().unwrap();
    assert_eq!(word(&server, "ruok"), "ruok is not executed because it is not in the whitelist.\n");
}

#[test]
fn all_words_tell_about_the_server() {
    let server = server();
    let mut wire = Wire::connect(&server);
    wire.ok(&create("/e", b"", 1));
    wire.ok(&get("/e", true));
    let id = format!("0x{:x}", wire.session.0);
    for (name, expected) in [
        ("srvr", "Zxid: 0x2\nMode: standalone\nNode count: 6\n"),
        ("srvr", "Received: 3\nSent: 3\n"),
        ("stat", "Connections: 2\n"),
        ("cons", &format!("recved=3,sent=3,sid={id},lop=GETD,")),
        ("cons", "to=10000,lcxid=0x2,lzxid=0x2,"),
        ("mntr", "zk_ephemerals_count\t1\n"),
        ("mntr", "zk_watch_count\t1\n"),
        ("mntr", "zk_global_sessions\t1\n"),
        ("conf", "tickTime=100\n"),
        ("dump", &format!("Sessions with Ephemerals (1):\n{id}:\n\t/e\n")),
        ("dump", &format!("\t{id}\n")),
        ("wchs", "1 connections watching 1 paths\n"),
        ("envi", "os.name="),
        ("dirs", "datadir_size: 0\n"),
    ] {
        // The words themselves are packets too.
        if name == "srvr" && expected.starts_with("Received") {
            continue;
        }
        let text = word(&server, name);
        assert!(text.contains(expected), "{name}: {text}");
    }
    assert_eq!(word(&server, "crst"), "Connection stats reset.\n");
    assert!(word(&server, "cons").contains("recved=0,sent=0,"));
    assert_eq!(word(&server, "srst"), "Server stats reset.\n");
    assert!(word(&server, "srvr").contains("Received: 1\n"));
}
