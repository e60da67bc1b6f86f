use super::*;

fn record(issuer: &str, bundle: &str, ends: u64) -> Record {
    Record { issuer: issuer.to_owned(), bundle: bundle.to_owned(), ends, id: "spiffe://a/ns/b/sa/c".to_owned() }
}

fn full() -> Ledger {
    let mut ledger = Ledger::default();
    for at in 0..MOST {
        ledger.put(Holder::Pod(format!("default/p{at}")), Some(record("k", "b", 1000)));
    }
    ledger
}

#[test]
fn what_is_kept_is_read_back() {
    let mut ledger = Ledger::default();
    for holder in [
        Holder::Ca("mesh-ca-0".to_owned()),
        Holder::Pod("default/reviews-v1".to_owned()),
        Holder::leaf("00ab12"),
        Holder::Others("k".to_owned()),
    ] {
        ledger.put(holder, Some(record("k", "b", 77)));
    }
    assert!(ledger.get(&Holder::leaf("ab12")).is_some(), "zeros in front do not count");
    assert_eq!(ledger.text().parse(), Ok(ledger.clone()));
    ledger.put(Holder::leaf("ab12"), None);
    assert_eq!(ledger.get(&Holder::leaf("ab12")), None);
}

#[test]
fn a_damaged_record_is_named_by_its_line() {
    for text in ["pod a/b k b 7 id\npod a/b", "pod a/b k b 7 id\nhouse a k b 7 id", "pod a/b k b 7 id\npod a k b x id"]
    {
        assert_eq!(text.parse::<Ledger>().expect_err("damaged").line, 2, "{text}");
    }
}

#[test]
fn those_without_room_end_with_the_last_of_them() {
    let mut ledger = full();
    for (at, ends) in [(1, 700), (2, 1900), (3, 1300)] {
        let (holder, record) = (Holder::Leaf(format!("{at}")), record("k", "b", ends));
        assert_eq!(ledger.covers(&holder, &record), ends == 1300, "the others end later than {ends}?");
        ledger.put(holder, Some(record));
    }
    let others = ledger.get(&Holder::Others("k".to_owned())).expect("they are joined");
    assert_eq!((others.ends, others.bundle.as_str()), (2400, "b"), "rounded up, never down");
    ledger.put(Holder::Leaf("4".to_owned()), Some(record("k", "other", 10)));
    let others = ledger.get(&Holder::Others("k".to_owned())).expect("they are joined");
    assert_eq!((others.ends, others.bundle.as_str()), (2400, "-"), "not all have the same roots");
    assert_eq!(ledger.iter().count(), MOST + 1);
    assert!(ledger.text().len() < 1_000_000, "it fits into one object");
    ledger.put(Holder::Pod("default/p0".to_owned()), Some(record("k", "b", 5000)));
    ledger.forget_ended(time(2400));
    assert_eq!(ledger.iter().count(), 1, "who was there before keeps its own record");
}
