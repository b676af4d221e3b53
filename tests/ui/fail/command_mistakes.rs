use tidings::Command;

#[derive(Command)]
struct NotClone;

#[derive(Command, Clone)]
struct Generic<T>(T);

#[derive(Command, Clone)]
#[command(name = "light")]
struct Named;

fn main() {}
