//! The seam to actix: threads with an event loop (arbiters), and actors that live on them.
//!
//! Everything that lives in the framework is an engine: an `async fn` that owns its state and its bounded inbox. Here it
//! becomes the one future of an actix actor. Nothing outside of this file and of the subscription of the user's own
//! actors names actix.

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, fut};
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// An actix system of our own on a thread of our own, so that the framework runs in any program: inside or outside of
/// another actix system, on a current-thread or a multi-thread tokio runtime.
#[derive(Debug)]
pub(crate) struct Arbiters {
    handles: Vec<actix::ArbiterHandle>,
    next: AtomicUsize,
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    system: actix::System,
    arbiters: Vec<actix::Arbiter>,
    main: JoinHandle<()>,
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threads").field("arbiters", &self.arbiters.len()).finish_non_exhaustive()
    }
}

impl Arbiters {
    /// Starts `count` arbiters, each a thread; at least one.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let main = std::thread::Builder::new().name("tidings-system".into()).spawn(move || {
            let runner = actix::System::new();
            let system = actix::System::current();
            let arbiters: Vec<_> = runner.block_on(async move {
                (0..count.max(1)).map(|_| actix::Arbiter::new()).collect()
            });
            if ready.send((system, arbiters)).is_ok()
                && let Err(error) = runner.run()
            {
                tracing::error!(%error, "the actor system ended");
            }
        })?;
        let (system, arbiters): (_, Vec<actix::Arbiter>) =
            started.recv().map_err(|_| io::Error::other("the actor system did not start"))?;
        Ok(Self {
            handles: arbiters.iter().map(actix::Arbiter::handle).collect(),
            next: AtomicUsize::new(0),
            threads: Mutex::new(Some(Threads { system, arbiters, main })),
        })
    }

    /// Starts an actor on the next arbiter in turn. Its life is the future that `engine` makes there.
    pub(crate) fn spawn<F>(&self, engine: impl FnOnce() -> F + Send + 'static) -> ActorHandle
    where
        F: Future<Output = ()> + 'static,
    {
        let (ended, join) = oneshot::channel();
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.handles.len().max(1);
        if let Some(arbiter) = self.handles.get(turn) {
            arbiter.spawn_fn(move || {
                Host { engine: Some(Box::pin(engine())), ended: Some(ended) }.start();
            });
        }
        ActorHandle { join }
    }

    /// Starts an actor on the thread of the system itself, which runs nothing of the user's and so is always free. None if the
    /// system has been stopped.
    pub(crate) fn spawn_aside<F>(
        &self,
        engine: impl FnOnce() -> F + Send + 'static,
    ) -> Option<ActorHandle>
    where
        F: Future<Output = ()> + 'static,
    {
        let threads = self.threads.lock();
        let (ended, join) = oneshot::channel();
        threads.as_ref()?.system.arbiter().spawn_fn(move || {
            Host { engine: Some(Box::pin(engine())), ended: Some(ended) }.start();
        });
        Some(ActorHandle { join })
    }

    /// Ends the arbiters and their system, and joins the threads; blocks until they have ended.
    pub(crate) fn stop(&self) {
        let Some(threads) = self.threads.lock().take() else {
            return;
        };
        for arbiter in threads.arbiters {
            arbiter.stop();
            if arbiter.join().is_err() {
                tracing::error!("an arbiter ended with a panic");
            }
        }
        threads.system.stop();
        if threads.main.join().is_err() {
            tracing::error!("the actor system ended with a panic");
        }
    }
}

/// The actor: it lives as long as its engine, and stops with it.
struct Host<F> {
    engine: Option<Pin<Box<F>>>,
    ended: Option<oneshot::Sender<Result<(), Panic>>>,
}

impl<F: Future<Output = ()> + 'static> Actor for Host<F> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some((engine, ended)) = self.engine.take().zip(self.ended.take()) else {
            return;
        };
        let life = fut::wrap_future::<_, Self>(AssertUnwindSafe(engine).catch_unwind());
        ctx.spawn(life.map(|result, _, ctx| {
            // Nobody joins an actor whose app was dropped without a shutdown.
            let _ = ended.send(result.map_err(Panic::new));
            ctx.stop();
        }));
    }
}

/// The owner's hold on an actor.
#[derive(Debug)]
pub(crate) struct ActorHandle {
    join: oneshot::Receiver<Result<(), Panic>>,
}

impl ActorHandle {
    /// Waits until the actor has ended. To be asked once.
    pub(crate) async fn ended(&mut self) -> Result<(), Panic> {
        let ended = (&mut self.join).await;
        ended.unwrap_or_else(|_| Err(Panic { message: "its arbiter ended".into() }))
    }
}

/// A panic that was caught.
#[derive(Debug, Clone)]
pub(crate) struct Panic {
    pub(crate) message: Arc<str>,
}

impl Panic {
    /// Reads the message out of what a panic carries.
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        let message = payload
            .downcast_ref::<&'static str>()
            .map(|text| Arc::from(*text))
            .or_else(|| payload.downcast_ref::<String>().map(|text| Arc::from(text.as_str())))
            .unwrap_or_else(|| Arc::from("a panic without a message"));
        Self { message }
    }

    /// Runs user code; a panic in it becomes an error.
    pub(crate) fn catch<R>(user_code: impl FnOnce() -> R) -> Result<R, Self> {
        std::panic::catch_unwind(AssertUnwindSafe(user_code)).map_err(Self::new)
    }
}
