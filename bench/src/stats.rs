//! Medians with their spread, and ratios taken pair by pair.

use serde::Serialize;

/// A median with the quartiles and extremes around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the values lie below.
    pub median: f64,
    /// A quarter of the values lie below.
    pub low: f64,
    /// A quarter of the values lie above.
    pub high: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// How many values there were.
    pub count: usize,
}

impl Spread {
    /// The spread of some values; of none, `None`.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        Some(Spread {
            median: quantile(&sorted, 0.5)?,
            low: quantile(&sorted, 0.25)?,
            high: quantile(&sorted, 0.75)?,
            min: *sorted.first()?,
            max: *sorted.last()?,
            count: sorted.len(),
        })
    }

    /// The spread of `mine / theirs` taken round by round, so that what disturbed a whole round cancels out.
    pub fn of_ratios(mine: &[f64], theirs: &[f64]) -> Option<Spread> {
        Spread::of(mine.iter().zip(theirs).map(|(a, b)| a / b))
    }
}

/// The value below which the share `part` of the sorted values lies, between two of them in proportion.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "positions in a list of a few thousand values are exact in an f64"
)]
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let place = part * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted.get(place.floor() as usize)?, sorted.get(place.ceil() as usize)?);
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_median_and_quartiles() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0, 5.0]).unwrap();
        assert_eq!(
            (spread.min, spread.low, spread.median, spread.high, spread.max),
            (1.0, 2.0, 3.0, 4.0, 5.0)
        );
        assert_eq!(Spread::of([1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        // Both were half as fast in the second round, and the ratio does not see it.
        let ratio = Spread::of_ratios(&[4.0, 2.0], &[2.0, 1.0]).unwrap();
        assert_eq!((ratio.min, ratio.max), (2.0, 2.0));
    }
}
