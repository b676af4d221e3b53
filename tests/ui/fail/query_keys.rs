use tidings::Query;

#[derive(Query)]
#[query(repy = u8)]
struct UnknownKey;

#[derive(Query)]
#[query(name = "balance", reply = u8)]
struct Named;

#[derive(Query)]
#[query(reply = u8, reply = u16)]
struct Twice;

#[derive(Query)]
#[query(reply)]
struct NoValue;

#[derive(Query)]
#[query(reply = )]
struct Empty;

#[derive(Query)]
#[query(reply = "u8")]
struct Text;

#[derive(Query)]
#[query(u8)]
struct NoKey;

#[derive(Query)]
#[query(reply = u8 crate = tidings)]
struct NoComma;

#[derive(Query)]
#[query]
struct NoList;

#[derive(Query)]
#[query(crate = tidings)]
struct NoReply;

#[derive(Query)]
struct NoAttribute;

#[derive(Query)]
#[query(reply = u8)]
struct Generic<T>(T);

fn main() {}
