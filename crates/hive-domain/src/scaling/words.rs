//! Why so many, for a person, with the numbers.

use super::{
    Demand, Limits,
    plan::{Plan, Rule},
    policy::ScalingPolicy,
    window::Hold,
};

/// The reason of a plan.
pub(super) fn reason(
    policy: &ScalingPolicy,
    limits: &Limits,
    demand: &Demand,
    plan: &Plan,
) -> String {
    let mut words = wish(policy, limits, demand, plan);
    let (wish, asked, before) = (plan.wish, plan.asked, plan.before);
    // What is said last decides: a limit over what consumers hold, that over windows and steps.
    let held = match plan.hold {
        _ if asked == wish => None,
        _ if asked == limits.max && wish > asked => Some(format!("at most {asked} are allowed")),
        _ if asked == limits.min && wish < asked => Some(format!("at least {asked} are kept")),
        Hold::Free => None,
        Hold::UpWindow => {
            let window = span(policy.scale_up_window_ms);
            Some(format!("stays {asked} until more are wanted for {window}"))
        },
        Hold::DownWindow => {
            let window = span(policy.scale_down_window_ms);
            Some(format!("{asked} were wanted within the last {window}"))
        },
        Hold::Cooldown(left) => {
            let left = span(left);
            Some(format!(
                "stays {asked} for another {left}, the pause between steps"
            ))
        },
        Hold::Step => {
            let size = asked.abs_diff(before);
            Some(format!("a step of {size} from {before} to {asked}"))
        },
    };
    if let Some(held) = held {
        words.push_str("; ");
        words.push_str(&held);
    }
    words
}

/// What the rule that wishes for most says.
fn wish(policy: &ScalingPolicy, limits: &Limits, demand: &Demand, plan: &Plan) -> String {
    let (count, inputs) = (plan.wish, &plan.inputs);
    let per = thousandths(inputs.capacity_milli);
    let slots = if inputs.capacity_milli == 1_000 {
        "1 slot per consumer".to_owned()
    } else {
        format!("{per} slots per consumer")
    };
    let service = span(inputs.service_ms.unwrap_or(0));
    let drain = span(policy.drain_target_ms);
    let wanted = consumers(count);
    match plan.rule {
        Rule::Idle => "nothing to do and nothing expected: no consumer is wanted".to_owned(),
        Rule::Wake => {
            let lag = demand.lag();
            format!("{lag} to deliver: {wanted} at least")
        },
        Rule::Lag => {
            let (lag, threshold) = (demand.lag(), limits.lag_threshold.max(1));
            format!("{lag} to deliver at one consumer for each {threshold}: {wanted}")
        },
        Rule::Busy => {
            let leased = demand.leased;
            format!("{leased} in flight for {slots}: {wanted} are busy")
        },
        Rule::Today => {
            let arrivals = thousandths(inputs.arrivals_milli);
            match (plan.backlog, inputs.arrivals_milli) {
                (0, _) => format!(
                    "{arrivals} arrive a second at {service} each for {slots}: {wanted} keep up"
                ),
                (backlog, 0) => format!(
                    "{backlog} waiting at {service} each for {slots}: \
                     {wanted} clear them in {drain}"
                ),
                (backlog, _) => format!(
                    "{backlog} waiting and {arrivals} a second arriving at {service} each for \
                     {slots}: {wanted} keep up and clear them in {drain}"
                ),
            }
        },
        Rule::Forecast => {
            let arrivals = thousandths(inputs.forecast_milli);
            let ahead = span(policy.startup_time_ms);
            let backlog = plan.backlog_then;
            format!(
                "in {ahead} {arrivals} a second are expected and {backlog} waiting, at {service} \
                 each for {slots}: {wanted} keep up and clear them in {drain}"
            )
        },
    }
}

fn consumers(count: u32) -> String {
    if count == 1 {
        "1 consumer".to_owned()
    } else {
        format!("{count} consumers")
    }
}

/// A number of thousandths, with one or two digits behind the point where it is small.
fn thousandths(milli: u64) -> String {
    let whole = milli / 1_000;
    let hundredths = milli % 1_000 / 10;
    if milli.is_multiple_of(1_000) || whole >= 100 {
        format!("{whole}")
    } else if whole >= 10 {
        let tenths = hundredths / 10;
        format!("{whole}.{tenths}")
    } else {
        format!("{whole}.{hundredths:02}")
    }
}

/// A time, to a tenth of a second below 10 s.
fn span(millis: u64) -> String {
    if millis < 1_000 {
        return format!("{millis} ms");
    }
    let (seconds, tenths) = (millis / 1_000, millis % 1_000 / 100);
    if seconds >= 10 {
        format!("{seconds} s")
    } else {
        format!("{seconds}.{tenths} s")
    }
}
