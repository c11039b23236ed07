//! Moments are read and written here so that they are numbers without Python's help: whatever is odd about
//! one that is read is left to Python, which can say what it is.

const DAY: i64 = 24 * 60 * 60;

/// Reads an RFC 3339 moment in UTC, `2026-01-31T12:00:00Z`, with or without three or six digits of a
/// fraction: milliseconds since 1970, rounded down. None for all others.
pub(crate) fn milliseconds(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"))?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "000"));
    if whole.len() != "2026-01-31T12:00:00".len() || !matches!(fraction.len(), 3 | 6) {
        return None;
    }
    for (at, mark) in [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")] {
        (whole.get(at..=at)? == mark).then_some(())?;
    }
    let part = |from, to| digits(whole.get(from..to)?);
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    digits(fraction)?;
    let rest = digits(fraction.get(..3)?)?;
    let usual = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let seconds = days_since_1970(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    usual.then_some(seconds * 1000 + rest)
}

/// Writes milliseconds since 1970 as RFC 3339 has them, in UTC: `2026-01-31T12:00:00.000Z`.
pub(crate) fn text(milliseconds: i64) -> String {
    let (days, rest) = (milliseconds.div_euclid(DAY * 1000), milliseconds.rem_euclid(DAY * 1000));
    let (year, month, day) = date_of(days);
    // The formatter of the standard library takes as long as all the rest of a result.
    let mut text = *b"0000-00-00T00:00:00.000Z";
    for (at, number) in [
        (0, year / 100),
        (2, year % 100),
        (5, month),
        (8, day),
        (11, rest / 3_600_000),
        (14, rest / 60_000 % 60),
        (17, rest / 1000 % 60),
        (20, rest % 1000 / 10),
        (21, rest % 100),
    ] {
        if let Some([tens, ones]) = text.get_mut(at..at + 2) {
            (*tens, *ones) = (digit(number / 10), digit(number));
        }
    }
    str::from_utf8(&text).unwrap_or_default().to_owned()
}

fn digit(number: i64) -> u8 {
    b'0' + u8::try_from(number.rem_euclid(10)).unwrap_or_default()
}

/// Gives year, month and day of a day since 1970, counted in years that begin with March: then the leap day
/// is the last of them.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (age, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (year, day) = (year + age * 400, day - (153 * month + 2) / 5 + 1);
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

fn digits(text: &str) -> Option<i64> {
    text.bytes().all(|it| it.is_ascii_digit()).then(|| text.parse().ok())?
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let leap_days = before / 4 - before / 100 + before / 400;
    let months = (1..month).map(|it| days_of(year, it)).sum::<i64>();
    before * 365 + leap_days + months + day - 1 - 719_162
}
