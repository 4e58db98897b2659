//! Right answers are taken, and each way to be wrong is seen.

use std::sync::Arc;

use zk_proto::{ErrorCode, MultiResult, ReplyHeader, Response, Stat, Zxid};

use super::*;
use crate::bench::space::Space;

const ZXID: i64 = 77;

fn header(err: ErrorCode) -> ReplyHeader {
    ReplyHeader { xid: 1, zxid: Zxid(ZXID), err }
}

fn body(response: &Response<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    response.encode(&mut body);
    body
}

fn space() -> Space {
    Space::new("/bench", 10, 4)
}

fn stat() -> Stat {
    Stat { mzxid: ZXID, version: 3, data_length: 4, ..Stat::default() }
}

/// Asks once and judges `answer`.
fn judge<S: Script>(mut script: S, answer: &[u8]) -> Verdict {
    let sent = script.next(1, &mut Vec::new()).expect("a first request");
    script.check(sent, header(ErrorCode::OK), answer)
}

const WRONG: Verdict = Verdict::Wrong("wrong content");

#[test]
fn an_error_code_is_a_failure_not_a_wrong_answer() {
    let mut get = Get::new(&space(), 0);
    assert_eq!(get.check((), header(ErrorCode::NO_NODE), &[]), Verdict::Failed);
}

#[test]
fn data_must_be_what_was_written() {
    let space = space();
    let value = Arc::clone(&space.value);
    let reply = |data: &[u8], stat| body(&Response::Data { data: Some(data), stat });
    assert_eq!(judge(Get::new(&space, 0), &reply(&value, stat())), Verdict::Right);
    assert_eq!(judge(Get::new(&space, 0), &reply(b"none", stat())), WRONG);
    assert_eq!(judge(Get::new(&space, 0), &reply(&value, Stat { data_length: 5, ..stat() })), WRONG);
    let mut long = reply(&value, stat());
    long.push(0);
    assert_eq!(judge(Get::new(&space, 0), &long), WRONG);
    assert_eq!(judge(Get::new(&space, 0), &long[..20]), WRONG);
}

#[test]
fn a_set_is_the_last_change_of_its_node() {
    let reply = |stat| body(&Response::Stat(stat));
    assert_eq!(judge(Set::new(&space(), 0), &reply(stat())), Verdict::Right);
    assert_eq!(judge(Set::new(&space(), 0), &reply(Stat { mzxid: ZXID - 1, ..stat() })), WRONG);
}

#[test]
fn all_children_must_be_listed_in_any_order() {
    let names: Arc<[String]> = ["a".to_owned(), "b".to_owned()].into();
    let children = || Children::new("/bench/child", Arc::clone(&names));
    let reply = |names: &[&'static str]| body(&Response::Paths(names.iter().map(|&n| n.into()).collect()));
    assert_eq!(judge(children(), &reply(&["b", "a"])), Verdict::Right);
    assert_eq!(judge(children(), &reply(&["a"])), WRONG);
    assert_eq!(judge(children(), &reply(&["a", "a"])), WRONG);
}

#[test]
fn a_create_answers_the_path() {
    let create = || Create::new(&space(), "/bench/parent/00000000".into());
    let reply = |path: &'static str| body(&Response::Create { path: path.into() });
    assert_eq!(judge(create(), &reply("/bench/parent/00000000/00000000")), Verdict::Right);
    assert_eq!(judge(create(), &reply("/bench/parent/00000000/00000001")), WRONG);
    assert_eq!(judge(create(), &reply("/bench/parent/00000001/00000000")), WRONG);
}

#[test]
fn every_result_of_a_multi_counts() {
    let set = |stat| MultiResult::SetData { stat };
    let reply = |results| body(&Response::Multi(results));
    let multi = || MultiSet::new(&space(), 0, 2);
    assert_eq!(judge(multi(), &reply(vec![set(stat()), set(stat())])), Verdict::Right);
    assert_eq!(judge(multi(), &reply(vec![set(stat())])), WRONG);
    assert_eq!(judge(multi(), &reply(vec![set(stat()), set(Stat::default())])), WRONG);
    assert_eq!(judge(multi(), &reply(vec![set(stat()), MultiResult::Delete])), WRONG);
}

#[test]
fn a_bulk_load_fills_one_directory_after_the_other() {
    let create = |path: &'static str| MultiResult::Create { path: path.into() };
    let mut bulk = BulkCreate::new(&space(), 2, 4, 1, 3);
    let mut ask = |answer: [&'static str; 2]| {
        let sent = bulk.next(1, &mut Vec::new()).unwrap();
        let answer = body(&Response::Multi(answer.into_iter().map(create).collect()));
        bulk.check(sent, header(ErrorCode::OK), &answer)
    };
    assert_eq!(ask(["/bench/00000001/00000000", "/bench/00000001/00000001"]), Verdict::Right);
    assert_eq!(ask(["/bench/00000001/00000002", "/bench/00000001/00000003"]), Verdict::Right);
    assert_eq!(ask(["/bench/00000004/00000000", "/bench/00000004/00000001"]), Verdict::Right);
    assert_eq!(ask(["/bench/00000004/00000002", "/bench/00000004/00000002"]), WRONG);
}

#[test]
fn a_lock_cycle_waits_for_each_answer_and_sees_only_itself() {
    let mut lock = LockCycle::new("/lock".into());
    let mut out = Vec::new();
    let ok = header(ErrorCode::OK);
    let create = lock.next(1, &mut out).unwrap();
    assert!(lock.next(2, &mut out).is_none());
    let created = body(&Response::Create { path: "/lock/lock-0000000007".into() });
    assert_eq!(lock.check(create, ok, &created), Verdict::Right);
    let list = lock.next(2, &mut out).unwrap();
    let listed = body(&Response::Paths(vec!["lock-0000000007".into()]));
    assert_eq!(lock.check(list, ok, &listed), Verdict::Right);
    out.clear();
    let delete = lock.next(3, &mut out).unwrap();
    assert!(out.windows(21).any(|bytes| bytes == b"/lock/lock-0000000007"));
    assert_eq!(lock.check(delete, ok, &[]), Verdict::Right);
    assert_eq!(lock.next(4, &mut out), Some(create));
}
