//! The exact value of a JSON number, read from its text and never by way of a float.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};
use serde_json::Number;

/// Postgres takes no exponent from here on, not even on a zero.
const EXPONENT_LIMIT: u64 = (i32::MAX / 2) as u64;

/// Reads every spelling of a whole number: to JSON Schema `1.0` and `1e0` are integers, to serde they are not.
pub(crate) fn whole<'de, D: Deserializer<'de>, T: FromStr>(deserializer: D) -> Result<T, D::Error> {
    let number = Number::deserialize(deserializer)?;
    let canonical = Decimal::of(&number).canonical();
    canonical
        .parse()
        .map_err(|_| de::Error::custom(format_args!("{number} is out of range")))
}

/// The parts of a JSON number as it was spelled.
pub(crate) struct Decimal<'a> {
    text: &'a str,
    negative: bool,
    integer: &'a str,
    fraction: &'a str,
    /// `None` if it does not fit 64 bits: no such number is accepted, and reading it must not fail.
    exponent: Option<i64>,
}

impl<'a> Decimal<'a> {
    pub(crate) fn of(number: &'a Number) -> Self {
        let text = number.as_str();
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        Self {
            text,
            negative: unsigned.len() < text.len(),
            integer,
            fraction,
            exponent: exponent.parse().ok(),
        }
    }

    /// The one spelling of this value: as ECMAScript writes a number, but with all of its digits.
    ///
    /// If a float's shortest spelling is exactly this value, that is the result. An exponent
    /// beyond 64 bits is kept as it was spelled; [`check_storable`](crate::check_storable) lets no
    /// such number in.
    pub(crate) fn canonical(&self) -> String {
        if self.is_zero() {
            return "0".to_owned();
        }
        let Some(point) = self.point() else {
            return self.text.to_owned();
        };
        let digits = self.digits();
        let sign = if self.negative { "-" } else { "" };
        let count = digits.len();
        // The cases of ECMA-262, Number::toString, with `point` as its n and `count` as its k.
        if (1..=21).contains(&point) {
            let point = usize::try_from(point).unwrap_or_default();
            if count <= point {
                return format!("{sign}{digits:0<point$}");
            }
            let (whole, part) = digits.split_at(point);
            return format!("{sign}{whole}.{part}");
        }
        if (-5..=0).contains(&point) {
            let zeros = usize::try_from(-point).unwrap_or_default();
            return format!("{sign}0.{:0<zeros$}{digits}", "");
        }
        let exponent = point - 1;
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        format!("{sign}{first}{dot}{rest}e{exponent:+}")
    }

    /// How many digits plain notation has before and after the point, as Postgres writes it: a
    /// trailing zero of a fraction counts. `None` where the exponent alone rules that out.
    pub(crate) fn plain_digits(&self) -> Option<(u64, u64)> {
        let exponent = self.exponent?;
        if exponent.unsigned_abs() >= EXPONENT_LIMIT {
            return None;
        }
        let before = if self.is_zero() {
            1
        } else {
            self.point()?.max(1)
        };
        let after = i64::try_from(self.fraction.len()).ok()? - exponent;
        Some((
            u64::try_from(before).ok()?,
            u64::try_from(after).unwrap_or(0),
        ))
    }

    /// Whether plain notation begins with a minus.
    pub(crate) fn is_negative(&self) -> bool {
        self.negative
    }

    fn is_zero(&self) -> bool {
        let zeros = |text: &str| text.bytes().all(|byte| byte == b'0');
        zeros(self.integer) && zeros(self.fraction)
    }

    /// The digits that count: no zeros in front, none behind.
    fn digits(&self) -> String {
        let all = [self.integer, self.fraction].concat();
        all.trim_matches('0').to_owned()
    }

    /// Where the point belongs: the value is 0.[digits](Self::digits) times ten to the power of
    /// this.
    fn point(&self) -> Option<i64> {
        let whole = self.integer.trim_start_matches('0');
        let place = if whole.is_empty() {
            let significant = self.fraction.trim_start_matches('0');
            -i64::try_from(self.fraction.len() - significant.len()).ok()?
        } else {
            i64::try_from(whole.len()).ok()?
        };
        place.checked_add(self.exponent?)
    }
}
