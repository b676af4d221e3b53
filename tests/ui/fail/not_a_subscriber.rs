struct Risk;

fn wired(builder: tidings::AppBuilder) -> tidings::AppBuilder {
    builder.subscriber(Risk)
}

fn main() {}
