#![allow(missing_docs, clippy::all, clippy::expect_used)]
use std::sync::OnceLock;
use std::time::Instant;
use tidings::testing::TopicFeed;
use tidings::*;
type E = [u64; 5];
fn main() {
    let stream = StreamId::new("account", "1").expect("a stream");
    let blank = Header::new(stream, "account.moved", 1, Timestamp::from_micros(0));
    println!(
        "envelope {} once {}",
        size_of::<Envelope<E>>(),
        size_of::<OnceLock<Envelope<E>>>()
    );
    let mut n = 0u64;
    let mut next = move || {
        n += 1;
        let mut header = blank.clone();
        header.position = Position::new(n);
        header.version = Version::new(n);
        Envelope {
            header,
            event: [n; 5],
        }
    };
    let N = 1u64 << 20;
    for round in 0..4 {
        let t = Instant::now();
        for _ in 0..N {
            std::hint::black_box(&next());
        }
        print!("make+drop {:.1} ", t.elapsed().as_nanos() as f64 / N as f64);
        for cap in [1024, 4096, 16384] {
            let feed = TopicFeed::<E>::new("account", cap);
            let mut p = feed.publisher();
            let t = Instant::now();
            for _ in 0..N {
                p.publish([next()]);
            }
            print!(
                " cap {cap}: single {:.1} ",
                t.elapsed().as_nanos() as f64 / N as f64
            );
            let t = Instant::now();
            for _ in 0..N / 64 {
                p.publish((0..64).map(|_| next()));
            }
            print!("batch64 {:.1}", t.elapsed().as_nanos() as f64 / N as f64);
            drop(p);
        }
        // oncelock alone
        let mut slots: Vec<OnceLock<Envelope<E>>> = (0..128).map(|_| OnceLock::new()).collect();
        let t = Instant::now();
        for _ in 0..N / 128 {
            for s in &mut slots {
                drop(s.take());
            }
            for s in &slots {
                let _ = s.set(next());
            }
        }
        println!("  raw once {:.1}", t.elapsed().as_nanos() as f64 / N as f64);
    }
}
