//! `cutwater set KEY=VALUE …`: changes settings of a live run, or for the next one; without arguments it lists them.

use serde_json::json;

use super::args::SetArgs;
use super::{Context, Ended, ordered, output};
use crate::error::{Error, Kind, Result};
use crate::pipeline::steering;
use crate::target::state::Order;

pub(super) async fn run(context: &Context, args: &SetArgs) -> Result<Ended> {
    if args.settings.is_empty() {
        return list(context).await;
    }
    let mut order = Order::default();
    for setting in &args.settings {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(Error::new(Kind::Config, format!("{setting:?} is not KEY=VALUE"))
                .fix(format!("settable on a live run:\n{}", steering::list())));
        };
        let (key, value) = (key.trim(), value.trim());
        steering::check(key, value)?;
        order.settings.insert(key.to_owned(), (value != steering::DEFAULT).then(|| value.to_owned()));
    }
    ordered::give(context, "set", &order, "SET").await
}

async fn list(context: &Context) -> Result<Ended> {
    let control = ordered::state(context)?.control().await?;
    if context.global.json {
        let keys: Vec<_> = steering::KEYS.iter().map(|(key, takes)| json!({ "key": key, "takes": takes })).collect();
        output::print_json(&json!({ "settings": control.settings, "keys": keys }))?;
    } else {
        let keys = steering::list();
        output::print(&format!("{}\n\nsettable on a live run:\n{keys}", ordered::holds(&control)));
    }
    Ok(Ended::Done)
}
