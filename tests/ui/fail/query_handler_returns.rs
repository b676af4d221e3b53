use tidings::{App, Memory, Query};

#[derive(Query)]
#[query(reply = i64)]
struct Balance;

async fn start() {
    let builder = App::builder().store(Memory::new());
    let _ = builder.answer(|_: Balance, _| async { 5 });
}

fn main() {}
