//! Every fault of our own is tried here: a simulation that lets one live proves less than it says.

use _rust::{Mutant, activate as put_in};

use crate::{Arguments, schedule};

/// Puts a fault into the runtime, by its name.
pub(crate) fn activate(name: &str) -> Result<(), String> {
    let mutant = Mutant::ALL.iter().find(|it| it.name() == name);
    let names = || Mutant::ALL.iter().map(|it| it.name()).collect::<Vec<_>>().join(", ");
    put_in(Some(*mutant.ok_or_else(|| format!("{name} is none of {}", names()))?));
    Ok(())
}

/// Tries every fault until a schedule notices it; true when each was.
#[expect(clippy::unnecessary_wraps, reason = "without the feature it cannot")]
pub(crate) fn every_mutant(arguments: &Arguments) -> Result<bool, String> {
    // The panics of a mutant are verdicts.
    std::panic::set_hook(Box::new(|_| ()));
    let Arguments { seeds, first, quiet, .. } = *arguments;
    let mut killed = 0;
    if !quiet {
        println!(
            "{:<26} {:<12} {:>9} {:>9}  what is wrong",
            "mutant", "killed by", "seed", "tried"
        );
    }
    for &mutant in Mutant::ALL {
        put_in(Some(mutant));
        let death = (first..first + seeds)
            .find_map(|seed| schedule(seed).err().map(|it| (seed, it.invariant.to_string())));
        put_in(None);
        killed += usize::from(death.is_some());
        let survives = death.is_none();
        let (seed, by) = death.unwrap_or((first + seeds - 1, "SURVIVES".to_owned()));
        if !quiet || survives {
            let tried = seed - first + 1;
            println!("{:<26} {by:<12} {seed:>9} {tried:>9}  {}", mutant.name(), mutant.what());
        }
    }
    println!("{killed} of {} mutants killed", Mutant::ALL.len());
    Ok(killed == Mutant::ALL.len())
}
