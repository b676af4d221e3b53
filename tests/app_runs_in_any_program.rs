//! An app runs inside of a tokio program with one thread or many, and inside of an actix one.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test fail it by panicking"
)]

#[path = "support/bank.rs"]
mod bank;

use actix::{Actor, Context};
use bank::*;
use tidings::{App, Batch, BatchSubscriber, Envelope, Memory, Topic};
use tokio::sync::watch;

async fn journey() {
    let app = App::builder()
        .store(Memory::new())
        .aggregate::<Account>()
        .projection(Balances::default())
        .start()
        .await
        .unwrap();
    app.send("a", Deposit { cents: 5 }).await.unwrap();
    let receipt = app.send("a", Withdraw { cents: 3 }).await.unwrap();
    let view = app.view::<Balances>();
    assert_eq!(view.at_least(receipt.position).await.unwrap().of["a"], 2);
    app.shutdown().await.unwrap();
}

#[test]
fn a_tokio_program_with_one_thread() {
    #[tokio::main(flavor = "current_thread")]
    async fn main() {
        soon("the journey", journey()).await;
    }
    main();
}

#[test]
fn a_tokio_program_with_many_threads() {
    #[tokio::main(flavor = "multi_thread", worker_threads = 2)]
    async fn main() {
        soon("the journey", tokio::spawn(journey())).await.unwrap();
    }
    main();
}

#[test]
fn an_actix_program() {
    #[actix::main]
    async fn main() {
        soon("the journey", journey()).await;
    }
    main();
}

/// An actor of the user's, in the user's own actix system.
struct Listener {
    topic: Topic<Envelope<AccountEvent>>,
    heard: watch::Sender<u64>,
}

impl Actor for Listener {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let topic = self.topic.clone();
        topic.subscribe().after(tidings::Position::START).batch_actor(ctx).detach();
    }
}

impl BatchSubscriber<Envelope<AccountEvent>> for Listener {
    fn receive(&mut self, batch: Batch<'_, Envelope<AccountEvent>>, _: &mut Context<Self>) {
        let heard = batch.len() as u64;
        self.heard.send_modify(|sum| *sum += heard);
    }
}

#[test]
fn an_actor_of_an_actix_program_hears_the_events() {
    #[actix::main]
    async fn main() {
        let builder = App::builder().store(Memory::new()).aggregate::<Account>();
        let app = builder.start().await.unwrap();
        app.send("a", Deposit { cents: 1 }).await.unwrap();
        let (heard, mut seen) = watch::channel(0);
        let _listener = Listener { topic: app.topic().unwrap(), heard }.start();
        for _ in 0..99 {
            app.send("a", Deposit { cents: 1 }).await.unwrap();
        }
        soon("the events", seen.wait_for(|heard| *heard == 100)).await.unwrap();
        app.shutdown().await.unwrap();
    }
    main();
}

#[tokio::test]
async fn two_apps_live_side_by_side() {
    let (first, second) = tokio::join!(tokio::spawn(journey()), tokio::spawn(journey()));
    first.unwrap();
    second.unwrap();
}
