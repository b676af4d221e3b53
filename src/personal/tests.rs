use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    about: Personal<BTreeMap<String, Vec<u8>>>,
    within: Personal<Personal<String>>,
    number: u32,
}

fn note() -> Note {
    let about = BTreeMap::from([("key".to_owned(), vec![0, 255, 7])]);
    Note {
        about: Personal::new("c-7", about),
        within: Personal::new("c-8", Personal::new("c-7", "Ada".to_owned())),
        number: 3,
    }
}

fn check(
    write: impl Fn(&Note) -> Result<Vec<u8>, Box<dyn std::error::Error>>,
    read: impl Fn(&[u8]) -> Result<Note, Box<dyn std::error::Error>>,
) {
    let keys = Keys::in_memory(Uuid::new_v5(&crate::id::fresh(), b"formats"));
    assert!(write(&note()).is_err(), "it is written outside of an app");
    let bytes = recording(&keys, || write(&note())).unwrap();
    assert!(!bytes.windows(3).any(|window| window == b"Ada" || window == b"key"));
    assert_eq!(with_keys(&keys, || read(&bytes)).unwrap(), note());
    let outside = read(&bytes).unwrap();
    assert!(matches!(outside.about.get(), Err(PersonalError::Sealed { .. })));
    let live = with_keys(&keys, || read(&bytes)).unwrap();
    keys.destroy("c-7", crate::clock::Timestamp::default()).unwrap();
    for forgotten in [&live, &with_keys(&keys, || read(&bytes)).unwrap()] {
        assert!(forgotten.about.is_forgotten() && forgotten.number == 3);
        assert!(forgotten.within.get().unwrap().is_forgotten());
        // As a part of a state it is kept as what it is; into the log it does not go.
        assert!(recording(&keys, || write(forgotten)).is_err());
        let kept = with_keys(&keys, || write(forgotten)).unwrap();
        let kept = with_keys(&keys, || read(&kept)).unwrap();
        assert!(kept.about.is_forgotten() && kept.within.get().unwrap().is_forgotten());
    }
}

#[test]
fn a_value_comes_back_from_each_format() {
    check(|note| Ok(serde_json::to_vec(note)?), |bytes| Ok(serde_json::from_slice(bytes)?));
    #[cfg(feature = "messagepack")]
    {
        check(|note| Ok(rmp_serde::to_vec(note)?), |bytes| Ok(rmp_serde::from_slice(bytes)?));
        let read = |bytes: &[u8]| Ok(rmp_serde::from_slice(bytes)?);
        check(|note| Ok(rmp_serde::to_vec_named(note)?), read);
    }
    #[cfg(feature = "cbor")]
    check(
        |note| {
            let mut bytes = Vec::new();
            ciborium::into_writer(note, &mut bytes)?;
            Ok(bytes)
        },
        |bytes| Ok(ciborium::from_reader(bytes)?),
    );
}

/// What stands in the place of a sealed value, or of a part of it, may be what should have been sealed.
#[test]
fn what_is_not_sealed_is_not_quoted() {
    let keys = Keys::in_memory(crate::id::fresh());
    let check = |error: &dyn fmt::Display| {
        let error = error.to_string();
        assert!(!error.contains("4711"), "{error}");
    };
    for text in [
        "4711",
        "-4711",
        "4711.5",
        r#""4711""#,
        r#"["4711"]"#,
        r#"{"4711":1}"#,
        r#"{"subject":4711,"sealed":""}"#,
        r#"{"subject":"c-7","sealed":4711}"#,
        r#"{"subject":"c-7","sealed":["4711"]}"#,
    ] {
        let read = || serde_json::from_str::<Personal<u64>>(text);
        check(&with_keys(&keys, read).unwrap_err());
    }
    #[cfg(feature = "cbor")]
    for number in [i128::MAX, i128::MIN, 4711] {
        let number = number / 10_000 * 10_000 + 4711;
        let mut bytes = Vec::new();
        ciborium::into_writer(&number, &mut bytes).unwrap();
        let read = || ciborium::from_reader::<Personal<i128>, _>(bytes.as_slice());
        check(&with_keys(&keys, read).unwrap_err());
    }
}

#[test]
fn a_scope_ends_with_a_panic_and_gives_way_to_one_within() {
    let (outer, inner) = (Keys::in_memory(crate::id::fresh()), Keys::in_memory(crate::id::fresh()));
    let name = Personal::new("c-7", "Ada".to_owned());
    with_keys(&outer, || {
        let panic = crate::actor::Panic::catch(|| {
            with_keys(&inner, || {
                serde_json::to_string(&name).unwrap();
                panic!("in the inner one")
            })
        });
        assert!(panic.is_err());
        serde_json::to_string(&name).unwrap();
    });
    assert!(serde_json::to_string(&name).is_err());
    // It was sealed with keys of both, so either can make it forgotten.
    assert_eq!(name.get().map(String::as_str), Ok("Ada"));
    inner.destroy("c-7", crate::clock::Timestamp::default()).unwrap();
    assert!(name.is_forgotten());
    assert!(with_keys(&outer, || recording(&outer, || serde_json::to_string(&name))).is_err());
}
