//! A browser reads its own writes: the position travels in a cookie or a header, and nothing that a client sends does harm.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]
#![cfg(all(feature = "macros", feature = "sqlite"))]

#[path = "support/bank.rs"]
mod bank;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bank::*;
use proptest::prelude::*;
use tidings::{App, EventStore, Memory, Position, Query, ReadToken, projection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

#[derive(Query, Clone)]
#[query(reply = u64)]
struct CountDeposits;

#[derive(Default)]
struct Counted(u64);

#[projection(name = "counted", version = 1)]
impl Counted {
    #[on]
    fn deposited(&mut self, _: &Deposited) {
        self.0 += 1;
    }

    #[query]
    fn count(&self, _: CountDeposits) -> u64 {
        self.0
    }
}

async fn start_on(store: impl EventStore) -> App {
    let app = App::builder().store(store).aggregate::<Account>();
    app.projection(Counted::default()).start().await.unwrap()
}

async fn start() -> App {
    start_on(Memory::new()).await
}

async fn deposit(app: &App) -> Position {
    app.send("a", Deposit { cents: 1 }).await.unwrap().position
}

/// A web server of two pages; tells `waits` of each page whether it had to wait for its view.
async fn serve(app: App, listener: TcpListener, waits: mpsc::Sender<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(respond(app.clone(), stream, waits.clone()));
    }
}

async fn respond(app: App, mut stream: TcpStream, waits: mpsc::Sender<bool>) {
    let (mut request, mut buffer) = (String::new(), [0; 1024]);
    while !request.ends_with("\r\n\r\n") {
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "the request is cut off: {request}");
        request.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    let mut lines = request.lines();
    let is_post = lines.next().unwrap().starts_with("POST ");
    let headers = lines.filter_map(|line| line.split_once(": "));
    let response = if is_post {
        let token = app.read_token(deposit(&app).await);
        let (name, cookie) = (ReadToken::HEADER, token.set_cookie());
        format!("HTTP/1.1 303 See Other\r\nSet-Cookie: {cookie}\r\n{name}: {token}\r\n\r\n")
    } else {
        let position = app.position_of(ReadToken::from_headers(headers));
        let asking = begin(app.query(CountDeposits).at_least(position).into_future()).await;
        waits.send(!asking.is_done()).await.unwrap();
        format!("HTTP/1.1 200 OK\r\n\r\n{}", asking.end().await.unwrap())
    };
    stream.write_all(response.as_bytes()).await.unwrap();
}

/// Sends one request with `header`, and returns the response.
async fn exchange(server: SocketAddr, method: &str, header: &str) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let request = format!("{method} / HTTP/1.1\r\nHost: bank\r\n{header}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

/// The value of a header of a response.
fn header<'a>(response: &'a str, name: &str) -> &'a str {
    let mut headers = response.lines().filter_map(|line| line.split_once(": "));
    headers.find(|(found, _)| *found == name).expect("no such header").1
}

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_behind_a_write_shows_it() {
    let app = start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let (waits, mut waited) = mpsc::channel(16);
    let serving = tokio::spawn(serve(app.clone(), listener, waits));

    // While somebody reads the view it cannot fold, so the write stays out of it.
    let held = app.view::<Counted>().read();
    let written = exchange(server, "POST", "Accept: */*").await;
    let cookie = header(&written, "Set-Cookie").split(';').next().unwrap();
    let with_cookie = format!("Cookie: theme=dark; {cookie}; language=en");
    let with_header = format!("Tidings-Position: {}", header(&written, ReadToken::HEADER));

    // A stranger gets the page at once, as it was.
    let page = soon("a page", exchange(server, "GET", "Cookie: theme=dark")).await;
    assert_eq!((body(&page), waited.recv().await), ("0", Some(false)));

    // Who wrote waits for it.
    let pages = [with_cookie, with_header]
        .map(|header| tokio::spawn(async move { exchange(server, "GET", &header).await }));
    assert_eq!(soon("a request", waited.recv()).await, Some(true));
    assert_eq!(soon("a request", waited.recv()).await, Some(true));
    drop(held);
    for page in pages {
        assert_eq!(body(&soon("a page", page).await.unwrap()), "1");
    }
    serving.abort();
    app.shutdown().await.unwrap();
}

/// The names and values of a `HeaderMap`.
struct Name(&'static str);
struct Value(Vec<u8>);

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.0
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[tokio::test]
async fn the_newest_token_of_this_log_wins_wherever_it_stands() {
    let (app, other) = (start().await, start().await);
    let mut positions = Vec::new();
    for _ in 0..3 {
        positions.push(deposit(&app).await);
        deposit(&other).await;
    }
    let [one, two, three] = [0, 1, 2].map(|n| app.read_token(positions[n]).to_string());
    let strange = other.read_token(other.head()).to_string();
    let cookie = |token: &str| format!("tidings-position={token}");
    let newest = |headers: &[(&'static str, String)]| {
        let map: Vec<_> = headers
            .iter()
            .map(|(name, value)| (Name(name), Value(value.as_bytes().to_vec())))
            .collect();
        let position = app.position_of(ReadToken::from_headers(map.iter().map(|(n, v)| (n, v))));
        // Pairs of texts are read alike.
        let pairs = headers.iter().map(|(name, value)| (*name, value.as_str()));
        assert_eq!(app.position_of(ReadToken::from_headers(pairs)), position);
        position.as_u64()
    };
    assert_eq!(newest(&[]), 0);
    assert_eq!(newest(&[("tidings-position", one.clone())]), 1);
    assert_eq!(newest(&[("TIDINGS-POSITION", one.clone()), ("cookie", cookie(&two))]), 2);
    assert_eq!(newest(&[("Tidings-Position", three.clone()), ("cookie", cookie(&two))]), 3);
    assert_eq!(newest(&[("tidings-position", format!("{one}, {three},{two}"))]), 3);
    assert_eq!(
        newest(&[("Cookie", format!("a=b;{};c={three}; {}", cookie(&two), cookie(&one)))]),
        2
    );
    assert_eq!(newest(&[("cookie", cookie(&one)), ("cookie", cookie(&three))]), 3);
    // Others say nothing, and hide nothing.
    assert_eq!(newest(&[("tidings-position", strange.clone()), ("cookie", cookie(&one))]), 1);
    assert_eq!(newest(&[("cookie", format!("{}; {}", cookie(&one), cookie(&strange)))]), 1);
    assert_eq!(newest(&[("x-tidings-position", three.clone()), ("set-cookie", cookie(&three))]), 0);
    assert_eq!(newest(&[("cookie", format!("not-{}; {three}", cookie(&three)))]), 0);
    app.shutdown().await.unwrap();
    other.shutdown().await.unwrap();
}

/// A log in a file of its own that holds `bytes`.
async fn restored(directory: &Path, bytes: Option<&[u8]>) -> App {
    let log = directory.join("bank.db");
    if let Some(bytes) = bytes {
        std::fs::write(&log, bytes).unwrap();
    }
    start_on(sqlite(log)).await
}

async fn end(app: App) {
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_token_of_before_a_backup_was_restored_is_not_waited_for() {
    let places = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let app = restored(places[0].path(), None).await;
    let early = app.read_token(deposit(&app).await);
    end(app).await;
    let backup = std::fs::read(places[0].path().join("bank.db")).unwrap();

    let app = restored(places[0].path(), None).await;
    deposit(&app).await;
    let late = app.read_token(deposit(&app).await);
    assert_eq!(app.position_of([early, late]), Position::new(3));
    end(app).await;

    let app = restored(places[1].path(), Some(&backup)).await;
    assert_eq!(app.position_of([late]), Position::START);
    assert_eq!(app.position_of([early, late]), Position::new(1));
    end(app).await;

    // Another log in its place.
    let app = restored(places[2].path(), None).await;
    for _ in 0..5 {
        deposit(&app).await;
    }
    assert_eq!(app.position_of([early, late]), Position::START);
    end(app).await;
}

#[tokio::test]
async fn a_position_that_was_not_handed_out_is_not_waited_for() {
    let app = start().await;
    let head = deposit(&app).await;
    for beyond in [head.next(), Position::new(u64::MAX)] {
        assert_eq!(app.position_of([app.read_token(beyond)]), Position::START);
        let reads = app.position_of([app.read_token(beyond), app.read_token(head)]);
        assert_eq!(reads, head);
        let asking = app.query(CountDeposits).at_least(reads).within(Duration::MAX);
        assert_eq!(soon("the answer", asking).await.unwrap(), 1);
    }
    app.shutdown().await.unwrap();
}

#[test]
fn a_token_reads_as_it_was_written_and_in_no_other_way() {
    proptest!(|(position: u64, log: u64)| {
        let text = format!("{position}.{log:016x}");
        let token: ReadToken = text.parse().unwrap();
        prop_assert_eq!(token.to_string(), &*text);
        prop_assert_eq!(
            token.set_cookie(),
            format!("tidings-position={text}; Path=/; Max-Age=60; HttpOnly; SameSite=Lax")
        );
    });
    proptest!(|(text in r"\PC*|[+-]?[0-9]{1,22}\.?[+-]?[0-9a-fA-F]{15,17}")| {
        if let Ok(token) = text.parse::<ReadToken>() {
            prop_assert_eq!(token.to_string(), text);
        }
    });
    for text in [
        "",
        ".",
        "1",
        "1.",
        ".9b5a5d1c7a3e4f60",
        "+1.9b5a5d1c7a3e4f60",
        "01.9b5a5d1c7a3e4f60",
        "-1.9b5a5d1c7a3e4f60",
        "1.9B5A5D1C7A3E4F60",
        "1.+b5a5d1c7a3e4f60",
        "1.b5a5d1c7a3e4f60",
        "1.9b5a5d1c7a3e4f600",
        "1.9b5a5d1c7a3e4f60 ",
        "18446744073709551616.9b5a5d1c7a3e4f60",
    ] {
        assert!(text.parse::<ReadToken>().is_err(), "{text:?}");
    }
}

/// A part of a header's value that may or may not be what is looked for.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        r"[;,= ]{0,2}(tidings-position)?=?[+0-9]{0,22}\.?[0-9a-f]{0,17}"
            .prop_map(String::into_bytes),
    ]
}

#[test]
fn whatever_a_client_sends_is_not_waited_for_beyond_the_head() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let app = runtime.block_on(start());
    let own = runtime.block_on(deposit(&app));
    let genuine = app.read_token(own).to_string();
    let forged = genuine.replacen("1.", "2.", 1).into_bytes();
    let parts = || {
        let part = prop_oneof![4 => hostile(), 1 => Just(forged.clone())];
        proptest::collection::vec(part, 0..6)
    };
    let name = || prop_oneof!["(?i)cookie", "(?i)tidings-position", r"\PC*"];
    let headers = || proptest::collection::vec((name(), parts()), 0..4);
    proptest!(|(before in headers(), after in headers())| {
        let join = |(name, parts): &(String, Vec<Vec<u8>>)| {
            let separator: &[u8] = if name.eq_ignore_ascii_case("cookie") { b"; " } else { b", " };
            (name.clone(), parts.join(separator))
        };
        let hostile = before.iter().chain(&after).map(join);
        prop_assert_eq!(app.position_of(ReadToken::from_headers(hostile)), Position::START);
        // The right one is found among all that.
        let cookie = ("cookie".to_owned(), format!("tidings-position={genuine}").into_bytes());
        let all = before.iter().map(join).chain([cookie]).chain(after.iter().map(join));
        prop_assert_eq!(app.position_of(ReadToken::from_headers(all)), own);
    });
    runtime.block_on(end(app));
}
