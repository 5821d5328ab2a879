//! Turns capture times into what `-t` … `-ttttt` and JSON show.

use crate::event::Nanos;
use std::ffi::CString;

const SECOND: u64 = 1_000_000_000;

/// What stands at the left of a line, as in tcpdump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeStyle {
    /// Local time of day.
    #[default]
    TimeOfDay,
    /// `-t`: nothing.
    None,
    /// `-tt`: seconds since 1970.
    Epoch,
    /// `-ttt`: since the previous line.
    Delta,
    /// `-tttt`: local date and time of day.
    Date,
    /// `-ttttt`: since the first line.
    SinceFirst,
}

impl TimeStyle {
    /// The style for so many `-t`.
    pub fn from_count(count: u8) -> TimeStyle {
        match count {
            0 => TimeStyle::TimeOfDay,
            1 => TimeStyle::None,
            2 => TimeStyle::Epoch,
            3 => TimeStyle::Delta,
            4 => TimeStyle::Date,
            _ => TimeStyle::SinceFirst,
        }
    }
}

/// A point in time by the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    pub year: u64,
    /// 1 to 12, and 1 to 31.
    pub month: u64,
    pub day: u64,
    pub hour: u64,
    pub minute: u64,
    pub second: u64,
}

/// Seconds since 1970 in UTC.
pub fn utc(seconds: u64) -> Civil {
    let of_day = seconds % 86_400;
    // Days to a date: http://howardhinnant.github.io/date_algorithms.html#civil_from_days
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    Civil {
        year: year_of_era + era * 400 + u64::from(month <= 2),
        month,
        day: of_year - (153 * month_from_march + 2) / 5 + 1,
        hour: of_day / 3_600,
        minute: of_day / 60 % 60,
        second: of_day % 60,
    }
}

/// Seconds since 1970 in the time zone of the system (`TZ`); UTC where that is impossible.
pub fn local(seconds: u64) -> Civil {
    let Some(tm) = localtime(seconds) else {
        return utc(seconds);
    };
    let number = |field: libc::c_int| u64::try_from(field).unwrap_or(0);
    Civil {
        year: number(tm.tm_year.saturating_add(1900)),
        month: number(tm.tm_mon.saturating_add(1)),
        day: number(tm.tm_mday),
        hour: number(tm.tm_hour),
        minute: number(tm.tm_min),
        second: number(tm.tm_sec),
    }
}

#[allow(unsafe_code)]
fn localtime(seconds: u64) -> Option<libc::tm> {
    let seconds = libc::time_t::try_from(seconds).ok()?;
    let mut tm = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live values of the right type; the function writes nothing
    // else, and unlike localtime() it returns no pointer into static memory.
    let done = unsafe { libc::localtime_r(&raw const seconds, tm.as_mut_ptr()) };
    // SAFETY: all-zero bytes are a valid `tm` (integers and a pointer that is not followed).
    (!done.is_null()).then(|| unsafe { tm.assume_init() })
}

/// A file name made of a strftime(3) pattern and the local time (`-G`). A pattern that comes to
/// nothing, or to more than a file name may have, stays as it is.
#[allow(unsafe_code)]
pub fn file_name(pattern: &str, ts: Nanos) -> String {
    const LONGEST: usize = 4096;
    let (Ok(format), Some(tm)) = (CString::new(pattern), localtime(ts / SECOND)) else {
        return pattern.to_owned();
    };
    let mut name = vec![0u8; LONGEST];
    // SAFETY: the buffer has the size given, the format ends with a NUL, and `tm` is initialised.
    let len = unsafe {
        libc::strftime(
            name.as_mut_ptr().cast(),
            name.len(),
            format.as_ptr(),
            &raw const tm,
        )
    };
    name.truncate(len);
    if name.is_empty() {
        return pattern.to_owned();
    }
    String::from_utf8_lossy(&name).into_owned()
}

/// Writes the time column, line by line.
#[derive(Debug)]
pub struct Clock {
    style: TimeStyle,
    nano: bool,
    zone: fn(u64) -> Civil,
    /// The second that `rendered` stands for: a hundred thousand lines may share one.
    second: Option<u64>,
    rendered: Vec<u8>,
    /// What `-ttt` and `-ttttt` count from.
    origin: Option<Nanos>,
}

impl Clock {
    /// With `nano`, nine digits after the point, otherwise six.
    pub fn new(style: TimeStyle, nano: bool) -> Clock {
        Clock::in_zone(style, nano, local)
    }

    /// The same with a time zone of one's own.
    pub fn in_zone(style: TimeStyle, nano: bool, zone: fn(u64) -> Civil) -> Clock {
        Clock {
            style,
            nano,
            zone,
            second: None,
            rendered: Vec::new(),
            origin: None,
        }
    }

    /// Appends the time of the next line, without a space behind it; nothing for `-t`.
    pub fn write(&mut self, out: &mut Vec<u8>, ts: Nanos) {
        let (seconds, nanos) = (ts / SECOND, ts % SECOND);
        match self.style {
            TimeStyle::None => {}
            TimeStyle::Epoch => {
                padded(out, seconds, 1);
                fraction(out, nanos, self.nano);
            }
            TimeStyle::Delta | TimeStyle::SinceFirst => {
                let origin = *self.origin.get_or_insert(ts);
                if self.style == TimeStyle::Delta {
                    self.origin = Some(ts);
                }
                if ts < origin {
                    out.push(b'-');
                }
                let apart = ts.abs_diff(origin);
                let whole = apart / SECOND;
                time_of_day(out, whole / 3_600, whole / 60 % 60, whole % 60);
                fraction(out, apart % SECOND, self.nano);
            }
            TimeStyle::TimeOfDay | TimeStyle::Date => {
                if self.second != Some(seconds) {
                    let civil = (self.zone)(seconds);
                    self.rendered.clear();
                    if self.style == TimeStyle::Date {
                        date(&mut self.rendered, &civil);
                        self.rendered.push(b' ');
                    }
                    time_of_day(&mut self.rendered, civil.hour, civil.minute, civil.second);
                    self.second = Some(seconds);
                }
                out.extend_from_slice(&self.rendered);
                fraction(out, nanos, self.nano);
            }
        }
    }
}

/// Appends `2026-11-22T12:31:04.118203456Z` (RFC 3339, UTC, always nine digits: such strings sort).
pub fn rfc3339(out: &mut Vec<u8>, ts: Nanos) {
    let civil = utc(ts / SECOND);
    date(out, &civil);
    out.push(b'T');
    time_of_day(out, civil.hour, civil.minute, civil.second);
    fraction(out, ts % SECOND, true);
    out.push(b'Z');
}

fn date(out: &mut Vec<u8>, civil: &Civil) {
    padded(out, civil.year, 4);
    out.push(b'-');
    padded(out, civil.month, 2);
    out.push(b'-');
    padded(out, civil.day, 2);
}

fn time_of_day(out: &mut Vec<u8>, hour: u64, minute: u64, second: u64) {
    padded(out, hour, 2);
    out.push(b':');
    padded(out, minute, 2);
    out.push(b':');
    padded(out, second, 2);
}

fn fraction(out: &mut Vec<u8>, nanos: u64, nano: bool) {
    out.push(b'.');
    if nano {
        padded(out, nanos, 9);
    } else {
        padded(out, nanos / 1_000, 6);
    }
}

/// The number in decimal with leading zeros up to `width`; about five times faster than `write!`.
fn padded(out: &mut Vec<u8>, number: u64, width: usize) {
    let start = out.len();
    let mut rest = number;
    while rest > 0 || out.len() - start < width {
        out.push(b'0' + (rest % 10) as u8);
        rest /= 10;
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22 12:31:04.118203456 UTC.
    const TS: Nanos = 1_795_350_664_118_203_456;

    fn one_hour_east(seconds: u64) -> Civil {
        utc(seconds + 3_600)
    }

    fn shown(style: TimeStyle, nano: bool, times: &[Nanos]) -> Vec<String> {
        let mut clock = Clock::in_zone(style, nano, one_hour_east);
        times
            .iter()
            .map(|&ts| {
                let mut out = Vec::new();
                clock.write(&mut out, ts);
                String::from_utf8(out).unwrap()
            })
            .collect()
    }

    #[test]
    fn default_is_local_time_of_day() {
        assert_eq!(
            shown(TimeStyle::from_count(0), false, &[TS]),
            ["13:31:04.118203"]
        );
        assert_eq!(
            shown(TimeStyle::from_count(0), true, &[TS]),
            ["13:31:04.118203456"]
        );
    }

    #[test]
    fn each_second_is_rendered_anew() {
        let times = [TS, TS + 1_000, TS + SECOND, TS, TS + 86_400 * SECOND];
        assert_eq!(
            shown(TimeStyle::Date, false, &times),
            [
                "2026-11-22 13:31:04.118203",
                "2026-11-22 13:31:04.118204",
                "2026-11-22 13:31:05.118203",
                "2026-11-22 13:31:04.118203",
                "2026-11-23 13:31:04.118203",
            ]
        );
    }

    #[test]
    fn one_t_is_nothing_and_two_are_epoch_seconds() {
        assert_eq!(shown(TimeStyle::from_count(1), false, &[TS]), [""]);
        assert_eq!(
            shown(TimeStyle::from_count(2), false, &[TS]),
            ["1795350664.118203"]
        );
        assert_eq!(
            shown(TimeStyle::from_count(2), false, &[5_000]),
            ["0.000005"]
        );
    }

    #[test]
    fn three_t_count_from_the_previous_line() {
        assert_eq!(
            shown(
                TimeStyle::from_count(3),
                false,
                &[TS, TS + 12_000, TS + SECOND + 12_000, TS]
            ),
            [
                "00:00:00.000000",
                "00:00:00.000012",
                "00:00:01.000000",
                "-00:00:01.000012"
            ]
        );
    }

    #[test]
    fn five_t_count_from_the_first_line() {
        let later = TS + (100 * 3_600 + 61) * SECOND;
        assert_eq!(
            shown(TimeStyle::from_count(5), true, &[TS, TS + 12, later]),
            [
                "00:00:00.000000000",
                "00:00:00.000000012",
                "100:01:01.000000000"
            ]
        );
    }

    #[test]
    fn rfc3339_is_utc_with_nanoseconds() {
        for (ts, want) in [
            (TS, "2026-11-22T12:31:04.118203456Z"),
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399 * SECOND + 7, "2000-02-28T23:59:59.000000007Z"),
            (951_782_400 * SECOND, "2000-02-29T00:00:00.000000000Z"),
            (4_107_542_400 * SECOND, "2100-03-01T00:00:00.000000000Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            let mut out = Vec::new();
            rfc3339(&mut out, ts);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    #[test]
    fn calendar_agrees_with_the_c_library() {
        for day in (0..200_000).step_by(97) {
            let seconds = day * 86_400 + day % 86_400;
            let time = seconds as libc::time_t;
            let mut tm = std::mem::MaybeUninit::<libc::tm>::zeroed();
            #[allow(unsafe_code)]
            // SAFETY: as in `localtime`.
            let tm = unsafe {
                libc::gmtime_r(&raw const time, tm.as_mut_ptr());
                tm.assume_init()
            };
            let civil = utc(seconds);
            assert_eq!(
                (
                    civil.year as i32,
                    civil.month as i32,
                    civil.day as i32,
                    civil.hour as i32
                ),
                (tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour)
            );
        }
    }

    #[test]
    fn local_time_is_whole_minutes_from_utc() {
        let seconds = TS / SECOND;
        assert_eq!(local(seconds).second, utc(seconds).second);
        assert_eq!(local(seconds).year, 2026);
    }
}
