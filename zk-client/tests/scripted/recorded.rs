//! Replies and events as Apache ZooKeeper 3.9.3 sent them, see `tests/vectors/client/README.md`.

use std::collections::HashMap;

use serde_json::Value;
use zk_client::{Client, Error, EventKind, MultiResult, OpCode, ReadResult, ServerCode, Stat};

use crate::peer::{Peer, connected};

fn vectors() -> Vec<Value> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/client");
    let mut all = Vec::new();
    for file in ["auth", "cclient", "kazoo", "malformed", "multi", "ops", "quorum", "sessions", "watches"] {
        let text = std::fs::read_to_string(format!("{dir}/{file}.json")).expect("a vector file");
        all.extend(serde_json::from_str::<Vec<Value>>(&text).expect("a JSON array"));
    }
    all.sort_by_key(|element| element["seq"].as_i64());
    all
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// Every recorded reply and event.
pub fn frames_to_client() -> Vec<Vec<u8>> {
    let all = vectors();
    let frames = all.iter().filter(|e| e["part"] == "response" || e["part"] == "event");
    let frames: Vec<_> = frames.filter_map(|e| e["frame"].as_str().map(hex)).collect();
    assert!(frames.len() > 200 && frames.iter().all(|frame| frame.len() >= 16));
    frames
}

/// The recorded frame with its length, answering `xid`.
fn as_reply(frame: &Value, xid: i32) -> Vec<u8> {
    let mut frame = hex(frame.as_str().expect("hex"));
    frame[..4].copy_from_slice(&xid.to_be_bytes());
    let mut out = (frame.len() as u32).to_be_bytes().to_vec();
    out.extend(frame);
    out
}

fn stat(json: &Value) -> Stat {
    let long = |name: &str| json[name].as_i64().expect(name);
    let int = |name: &str| i32::try_from(long(name)).expect(name);
    Stat {
        czxid: long("czxid"),
        mzxid: long("mzxid"),
        ctime: long("ctime"),
        mtime: long("mtime"),
        version: int("version"),
        cversion: int("cversion"),
        aversion: int("aversion"),
        ephemeral_owner: long("ephemeralOwner"),
        data_length: int("dataLength"),
        num_children: int("numChildren"),
        pzxid: long("pzxid"),
    }
}

fn strings(json: &Value) -> Vec<String> {
    json.as_array().expect("a list").iter().map(|s| s.as_str().expect("text").to_owned()).collect()
}

fn bytes(json: &Value) -> Vec<u8> {
    json.as_str().map(hex).unwrap_or_default()
}

/// Makes the call that fits `op`, and checks what comes out against the decoded body; `false` if this client
/// has no call for it.
async fn check(zk: &Client, op: &str, name: &str, request: &Value, decoded: &Value) -> bool {
    let code = ServerCode(decoded["err"].as_i64().expect("err") as i32);
    let body = &decoded["body"];
    let found = match op {
        "getData" => zk.get("/p").await.map(|(data, found)| {
            assert_eq!((data.to_vec(), found), (bytes(&body["data"]), stat(&body["stat"])), "{name}");
        }),
        "exists" => match zk.exists("/p").await {
            Ok(None) => {
                assert_eq!(code, ServerCode::NO_NODE, "{name}");
                return true;
            }
            found => found.map(|found| assert_eq!(found, Some(stat(&body["stat"])), "{name}")),
        },
        "getChildren2" => zk.children("/p").await.map(|(names, found)| {
            assert_eq!((names, found), (strings(&body["children"]), stat(&body["stat"])), "{name}");
        }),
        "create2" | "createContainer" | "createTTL" => zk.create("/p", "").await.map(|created| {
            assert_eq!(created.path, body["path"].as_str().expect("path"), "{name}");
            assert_eq!(created.stat, stat(&body["stat"]), "{name}");
        }),
        "setData" => zk.set("/p", "").await.map(|found| assert_eq!(found, stat(&body["stat"]), "{name}")),
        "setACL" => {
            zk.set_acl("/p", &[], None).await.map(|found| assert_eq!(found, stat(&body["stat"]), "{name}"))
        }
        "getACL" => zk.acl("/p").await.map(|(acl, found)| {
            assert_eq!(found, stat(&body["stat"]), "{name}");
            let acl: Vec<_> =
                acl.iter().map(|a| (a.perms.0.into(), a.scheme.as_deref(), a.id.as_deref())).collect();
            let list = body["acl"].as_array().expect("acl").iter();
            let expected: Vec<(i64, _, _)> = list
                .map(|a| (a["perms"].as_i64().expect("perms"), a["scheme"].as_str(), a["id"].as_str()))
                .collect();
            assert_eq!(acl, expected, "{name}");
        }),
        "delete" => zk.delete("/p").await,
        "sync" => zk.sync("/p").await,
        "getEphemerals" => zk.ephemerals("/").await.map(|paths| {
            assert_eq!(paths, strings(&body["ephemerals"]), "{name}");
        }),
        "getAllChildrenNumber" => zk.count_descendants("/p").await.map(|count| {
            assert_eq!(Some(count), body["totalNumber"].as_u64(), "{name}");
        }),
        "whoAmI" => zk.who_am_i().await.map(|identities| {
            let list = body["clientInfo"].as_array().expect("clientInfo").iter();
            let expected: Vec<_> = list
                .map(|i| (i["authScheme"].as_str().expect("scheme"), i["user"].as_str().expect("user")))
                .collect();
            let found: Vec<_> = identities.iter().map(|(s, u)| (s.as_str(), u.as_str())).collect();
            assert_eq!(found, expected, "{name}");
        }),
        "multi" | "multiRead" => return check_multi(zk, op, name, request, decoded).await,
        _ => return false,
    };
    match found {
        Ok(()) => assert_eq!(code, ServerCode::OK, "{name}"),
        Err(Error::SessionExpired(_)) => assert_eq!(code, ServerCode::SESSION_EXPIRED, "{name}"),
        Err(error) => assert_eq!(error.code(), Some(code), "{name}: {error}"),
    }
    true
}

async fn check_multi(zk: &Client, op: &str, name: &str, request: &Value, decoded: &Value) -> bool {
    let Some(ops) = request["body"]["ops"].as_array() else { return false };
    let count = ops.iter().filter(|op| op["done"] == false).count();
    let code = ServerCode(decoded["err"].as_i64().expect("err") as i32);
    let results: Vec<&Value> = match decoded["body"]["results"].as_array() {
        Some(results) => results.iter().filter(|result| result["done"] == false).collect(),
        None => Vec::new(),
    };
    if op == "multiRead" {
        let reads = (0..count).fold(zk.multi_read(), |reads, _| reads.get("/p"));
        match reads.await {
            Err(error) => assert_eq!(error.code(), Some(code), "{name}"),
            Ok(found) => {
                for (found, expected) in found.iter().zip(results) {
                    let result = &expected["result"];
                    match found {
                        Err(code) => assert_eq!(Some(i64::from(code.0)), result["err"].as_i64(), "{name}"),
                        Ok(ReadResult::Data(data, found)) => {
                            assert_eq!(
                                (data.to_vec(), *found),
                                (bytes(&result["data"]), stat(&result["stat"]))
                            );
                        }
                        Ok(ReadResult::Children(names)) => assert_eq!(*names, strings(&result["children"])),
                        Ok(other) => panic!("{name}: {other:?}"),
                    }
                }
            }
        }
        return true;
    }
    let multi = (0..count).fold(zk.multi(), |multi, _| multi.check("/p", None));
    let codes = || results.iter().map(|r| r["result"]["err"].as_i64().unwrap_or(0));
    match multi.await {
        Ok(found) => {
            assert!(codes().all(|code| code == 0), "{name}");
            for (found, expected) in found.iter().zip(results) {
                let result = &expected["result"];
                match found {
                    MultiResult::Created { path, .. } => {
                        assert_eq!(Some(path.as_str()), result["path"].as_str())
                    }
                    MultiResult::Set { stat: found } => assert_eq!(*found, stat(&result["stat"]), "{name}"),
                    MultiResult::Deleted => assert_eq!(expected["type"], 2, "{name}"),
                    MultiResult::Checked => assert_eq!(expected["type"], 13, "{name}"),
                    other => panic!("{name}: {other:?}"),
                }
            }
        }
        Err(Error::Multi { index, code, results: found }) => {
            let found: Vec<i64> = found.iter().map(|r| r.map_or_else(|code| code.0.into(), |()| 0)).collect();
            let expected: Vec<i64> = codes().collect();
            assert_eq!((found[index], &found), (code.0.into(), &expected), "{name}");
            assert_ne!(code, ServerCode::RUNTIME_INCONSISTENCY, "{name}");
        }
        Err(error) => assert_eq!(error.code(), Some(code), "{name}: {error}"),
    }
    true
}

#[tokio::test(start_paused = true)]
async fn replies_are_understood() {
    let (zk, mut peer, _listener) = connected().await;
    let mut requests = HashMap::new();
    let mut checked = HashMap::<String, usize>::new();
    for element in vectors() {
        let key = (element["conn"].as_i64(), element["decoded"]["xid"].as_i64());
        match element["part"].as_str() {
            Some("request") => drop(requests.insert(key, element)),
            Some("response") => {
                let (Some(op), Some(name)) = (element["op"].as_str(), element["name"].as_str()) else {
                    continue;
                };
                // What this client never sends in this form, and what comes after the session's end.
                if op == "reconfig" || element["decoded"]["xid"].as_i64().is_none_or(|xid| xid <= 0) {
                    continue;
                }
                let request = requests.get(&key).map_or(Value::Null, |request| request["decoded"].clone());
                let server = async {
                    let received = peer.next().await;
                    peer.write(&as_reply(&element["frame"], received.xid)).await;
                };
                tokio::select! {
                    biased;
                    known = async {
                        tokio::join!(check(&zk, op, name, &request, &element["decoded"]), server).0
                    } => if known { *checked.entry(op.to_owned()).or_default() += 1 },
                    () = tokio::time::sleep(std::time::Duration::from_millis(1)) => {}
                }
            }
            _ => {}
        }
    }
    for op in
        ["getData", "exists", "getChildren2", "create2", "setData", "setACL", "getACL", "delete", "sync"]
    {
        assert!(checked.contains_key(op), "no recorded reply to {op}");
    }
    assert!(checked["multi"] >= 5 && checked["multiRead"] >= 2 && checked["whoAmI"] >= 2, "{checked:?}");
    assert!(checked.values().sum::<usize>() >= 100, "{checked:?}");
}

#[tokio::test(start_paused = true)]
async fn events_are_understood() {
    let (zk, mut peer, _listener) = connected().await;
    let watch = async { zk.watch("/").recursive().await };
    let (watch, received) = tokio::join!(watch, peer.serve());
    assert_eq!(received.op, OpCode::AddWatch);
    let mut watch = watch.unwrap();
    let mut events = 0;
    for element in vectors().iter().filter(|element| element["part"] == "event") {
        peer.write(&as_reply(&element["frame"], -1)).await;
        let (decoded, body) = (&element["decoded"], &element["decoded"]["body"]);
        let kind = match body["type"].as_i64() {
            Some(1) => EventKind::Created,
            Some(2) => EventKind::Deleted,
            Some(3) => EventKind::DataChanged,
            // A recursive watch leaves those out.
            _ => continue,
        };
        let event = watch.next().await.unwrap();
        assert_eq!((event.kind, Some(event.path.as_str())), (kind, body["path"].as_str()));
        assert_eq!(event.zxid, decoded["zxid"].as_i64().and_then(|zxid| u64::try_from(zxid).ok()));
        events += 1;
    }
    assert!(events > 20, "{events}");
}

/// Recorded handshakes: new, refused, without the read-only byte, a bare error instead of an answer.
#[tokio::test(start_paused = true)]
async fn connect_responses_are_understood() {
    let mut refused = 0;
    for element in vectors().iter().filter(|element| element["part"] == "connect-response") {
        let decoded = &element["decoded"];
        let frame = hex(element["frame"].as_str().expect("hex"));
        let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
        bytes.extend(frame);
        let (builder, mut listener) = crate::peer::script();
        let zk = builder.lazy().unwrap();
        let mut peer: Peer = listener.accept().await;
        peer.connect_request().await;
        peer.write(&bytes).await;
        if decoded["timeOut"].as_i64().unwrap_or(0) == 0 {
            refused += 1;
            peer.closed().await;
            continue;
        }
        assert_eq!(Some(zk.connected().await.unwrap().0), decoded["sessionId"].as_i64());
        let timeout = zk.session().timeout();
        assert_eq!(Some(timeout.as_millis()), decoded["timeOut"].as_u64().map(u128::from));
    }
    assert!(refused >= 2, "{refused}");
}
