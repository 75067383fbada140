//! `ladewartctl variable`.

use clap::Subcommand;
use jiff::{SignedDuration, tz::TimeZone};
use ladewart_proto::v1::{self, Change, variable_service_client::VariableServiceClient};

use crate::{
    clock,
    failure::Failure,
    quantity::{self, When},
    session::Session,
    table::table,
    words::{self, NOTHING, Style},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Variable {
    /// Sets a variable; what follows from it leaves at once.
    Set {
        /// Its name, as in `variable list`.
        name: String,
        /// A number in the variable's unit.
        #[arg(allow_hyphen_values = true)]
        value: f64,
        /// Ends then: 18:00, "2026-11-23 18:00", 2026-11-23T18:00:00+01:00.
        #[arg(long, value_name = "TIME", value_parser = quantity::when)]
        until: Option<When>,
        /// Ends so long from now: 30min, "1h 30min".
        #[arg(long = "for", value_name = "DURATION", value_parser = quantity::duration, conflicts_with = "until")]
        lasting: Option<SignedDuration>,
    },
    /// Takes a setting back; then the default holds.
    Clear {
        /// Its name.
        name: String,
    },
    /// Every variable with its value and who set it.
    List,
}

impl Variable {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        match self {
            Self::Set { name, value, until, lasting } => {
                let (now, zone) = (clock::now(), TimeZone::system());
                let until = match (until, lasting) {
                    (Some(until), _) => {
                        Some(until.resolve(now, &zone).map_err(|p| Failure::Usage(format!("--until: {p}")))?)
                    }
                    (None, Some(lasting)) => Some(
                        now.checked_add(lasting)
                            .map_err(|_| Failure::Usage("--for: this is beyond the calendar".to_owned()))?,
                    ),
                    (None, None) => None,
                };
                let valid_until = until.map(quantity::timestamp);
                let request = v1::SetVariableRequest { name: name.clone(), value, valid_until };
                let mut client = VariableServiceClient::new(session.channel().await?);
                let answer = session.call(client.set_variable(request)).await?;
                session.show("SetVariableResponse", &answer, |_| sentence(&name, answer.change())).await
            }
            Self::Clear { name } => {
                let request = v1::ClearVariableRequest { name: name.clone() };
                let mut client = VariableServiceClient::new(session.channel().await?);
                let answer = session.call(client.clear_variable(request)).await?;
                session.show("ClearVariableResponse", &answer, |_| sentence(&name, answer.change())).await
            }
            Self::List => {
                let mut client = VariableServiceClient::new(session.channel().await?);
                let answer = session.call(client.list_variables(v1::ListVariablesRequest {})).await?;
                session.show("ListVariablesResponse", &answer, |style| list(style, &answer.variables)).await
            }
        }
    }
}

fn sentence(name: &str, change: Change) -> String {
    let name = words::clean(name);
    match change {
        Change::Created | Change::Replaced => format!("{name} is set."),
        Change::Removed => format!("{name} is back at its default."),
        Change::None | Change::Unspecified => format!("{name} was so already; nothing changed."),
    }
}

fn list(style: &Style, all: &[v1::Variable]) -> String {
    let row = |v: &v1::Variable| {
        let number = |value: f64| format!("{value} {}", words::clean(&v.unit)).trim_end().to_owned();
        let by = if v.issuer.is_empty() { "default".to_owned() } else { words::clean(&v.issuer) };
        vec![
            words::text(&v.name),
            v.value.map_or_else(|| NOTHING.to_owned(), number),
            if v.value.is_none() { NOTHING.to_owned() } else { by },
            style.time(v.set_at.as_ref()),
            style.time(v.valid_until.as_ref()),
            format!("{} to {}", v.min, v.max),
            words::clean(&v.roles.join(" ")),
        ]
    };
    if all.is_empty() {
        return "This site has no variables; add [[variable]] to its configuration.".to_owned();
    }
    let headings = ["VARIABLE", "VALUE", "BY", "SINCE", "UNTIL", "RANGE", "SET BY"];
    table(style, &headings, all.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_stand_in_columns() {
        let avail = v1::Variable {
            name: "AVAIL".into(),
            unit: "%".into(),
            value: Some(62.5),
            issuer: "cert:dso".into(),
            set_at: Style::ago(60),
            valid_until: Style::ago(-3600),
            max: 100.0,
            default_value: Some(100.0),
            roles: vec!["grid".into(), "supplier".into()],
            ..Default::default()
        };
        let unset = v1::Variable { name: "TARIF".into(), max: 1.0, ..Default::default() };
        insta::assert_snapshot!(list(&Style::fixed(), &[avail, unset]));
    }
}
