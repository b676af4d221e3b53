//! A whole domain inside a function, and one in a module inside a function that names its neighbours with `super`.
use serde::{Deserialize, Serialize};
use tidings::{Aggregate as _, Command, Event, aggregate, projection};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "door.opened")]
struct Opened;

fn main() {
    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "lamp.lit")]
    struct Lit;

    #[derive(Command, Clone)]
    struct Light;

    #[derive(Default)]
    struct Lamp {
        lit: bool,
    }

    #[aggregate(category = "lamp", events = LampEvent)]
    impl Lamp {
        #[command]
        fn light(&self, _: Light) -> Option<Lit> {
            (!self.lit).then_some(Lit)
        }

        #[apply]
        fn lit(&mut self, _: &Lit) {
            self.lit = true;
        }
    }

    struct Lamps(usize);

    #[projection(name = "lamps")]
    impl Lamps {
        #[on]
        fn lit(&mut self, _: &Lit) {
            self.0 += 1;
        }
    }

    mod inner {
        #[derive(Default)]
        pub(super) struct Door;

        #[tidings::aggregate(category = "door", events = pub(super) DoorEvent)]
        impl Door {
            #[apply]
            fn opened(&mut self, _: &super::Opened) {}
        }
    }

    let mut lamp = Lamp::default();
    lamp.apply(&LampEvent::Lit(Lit));
    assert!(lamp.lit);
    inner::Door.apply(&Opened.into());
    let _ = (Light, Lamps(0));
}
