//! JSON Schema as far as the document uses it: making values that fit, and judging values that were answered.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A seeded source of choices.
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    /// In so many of a hundred cases.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A text of any kind, mostly a harmless one.
    pub fn text(&mut self) -> String {
        const ODD: [&str; 14] =
            ["a", "Z", "0", ".", "*", "-", "_", " ", "/", "\u{0}", "\r\n", "ä", "\u{1f980}", "{attempt}"];
        if self.percent(70) {
            return (*self.pick(&["a", "order", "x-1", "Some-Name"])).to_owned();
        }
        (0..self.below(12)).map(|_| *self.pick(&ODD)).collect()
    }

    /// JSON of any kind.
    pub fn anything(&mut self) -> Value {
        match self.below(8) {
            0 => Value::Null,
            1 => json!(self.percent(50)),
            2 => json!(-1),
            3 => json!(1e300),
            4 => json!([self.text()]),
            5 => json!({self.text(): self.text()}),
            6 => json!(self.next()),
            _ => json!(self.text()),
        }
    }
}

/// What a reference leads to.
pub fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => resolve(document, document.pointer(reference.trim_start_matches('#')).unwrap()),
        None => schema,
    }
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A value that fits, but for the patterns of texts.
pub fn generate(document: &Value, schema: &Value, dice: &mut Dice) -> Value {
    let schema = resolve(document, schema);
    for alternatives in ["oneOf", "anyOf"] {
        if let Some(all) = schema[alternatives].as_array() {
            return generate(document, dice.pick(all), dice);
        }
    }
    if let Some(names) = schema["enum"].as_array() {
        return dice.pick(names).clone();
    }
    let types = types(schema);
    if types.is_empty() {
        return dice.anything();
    }
    match *dice.pick(&types) {
        "null" => Value::Null,
        "boolean" => json!(dice.percent(50)),
        "integer" => {
            let low = schema["minimum"].as_u64().unwrap_or(0);
            let high = schema["maximum"].as_u64().unwrap_or(low + 1000);
            json!(*dice.pick(&[low, high, u64::midpoint(low, high)]))
        }
        "number" => {
            let low = schema["minimum"].as_f64().unwrap_or(0.0);
            let high = schema["maximum"].as_f64().unwrap_or(low + 10.0);
            json!(*dice.pick(&[low, high, f64::midpoint(low, high)]))
        }
        "array" => (0..dice.below(3)).map(|_| generate(document, &schema["items"], dice)).collect(),
        "object" => object(document, schema, dice),
        _ if schema["format"] == "date-time" => json!("2026-01-02T03:04:05.678Z"),
        _ => match schema["examples"].get(0).or_else(|| schema.get("example")) {
            Some(example) => example.clone(),
            None => json!(dice.text()),
        },
    }
}

fn object(document: &Value, schema: &Value, dice: &mut Dice) -> Value {
    let mut members = Map::new();
    for (name, of) in schema["properties"].as_object().into_iter().flatten() {
        let required = schema["required"].as_array().is_some_and(|all| all.iter().any(|item| item == name));
        if required || dice.percent(40) {
            members.insert(name.clone(), generate(document, of, dice));
        }
    }
    if schema["additionalProperties"].is_object() {
        for _ in 0..dice.below(3) {
            members.insert(dice.text(), generate(document, &schema["additionalProperties"], dice));
        }
    }
    Value::Object(members)
}

/// Spoils one place of a value.
pub fn spoil(value: &mut Value, dice: &mut Dice) {
    match value {
        Value::Object(members) if !members.is_empty() && dice.percent(80) => {
            let names: Vec<String> = members.keys().cloned().collect();
            let name = dice.pick(&names).clone();
            if dice.percent(20) {
                members.insert(dice.text(), Value::Null);
            }
            spoil(&mut members[&name], dice);
        }
        Value::Array(items) if !items.is_empty() && dice.percent(80) => {
            let at = dice.below(items.len());
            spoil(&mut items[at], dice);
        }
        other => *other = dice.anything(),
    }
}

/// What is wrong with an answer: a member that is missing or not described, a value of another type.
pub fn breaches(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let schema = resolve(document, schema);
    if let Some(either) = spread(document, schema) {
        return breaches(document, &either, value, at, found);
    }
    for alternatives in ["oneOf", "anyOf"] {
        if let Some(all) = schema[alternatives].as_array() {
            let fits = |one: &&Value| {
                let mut wrong = Vec::new();
                breaches(document, one, value, at, &mut wrong);
                wrong.is_empty()
            };
            if all.iter().find(fits).is_none() {
                found.push(format!("{at}: {value} is none of {schema}"));
            }
            return;
        }
    }
    if let Some(names) = schema["enum"].as_array().filter(|names| !names.contains(value)) {
        found.push(format!("{at}: {value} is none of {names:?}"));
    }
    let types = types(schema);
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = types.is_empty() || types.contains(&is) || (is == "integer" && types.contains(&"number"));
    if !fits {
        found.push(format!("{at}: {value} is not {types:?}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        breaches(document, &schema["items"], item, &format!("{at}/{index}"), found);
    }
    if let Some(members) = value.as_object() {
        let mut described = BTreeMap::new();
        let mut required = Vec::new();
        describe(document, schema, &mut described, &mut required);
        for name in required.into_iter().filter(|name| !members.contains_key(*name)) {
            found.push(format!("{at}: {name} is missing"));
        }
        for (name, member) in members {
            match described.get(name.as_str()).copied().or_else(|| schema.get("additionalProperties")) {
                Some(of) => breaches(document, of, member, &format!("{at}/{name}"), found),
                None if described.is_empty() => {}
                None => found.push(format!("{at}: {name} is not described")),
            }
        }
    }
}

/// Of a schema that is both one of several and something else: one of several, each with that else.
fn spread(document: &Value, schema: &Value) -> Option<Value> {
    let parts = schema["allOf"].as_array()?;
    let place = parts.iter().position(|part| resolve(document, part)["oneOf"].is_array())?;
    let alternatives = resolve(document, &parts[place])["oneOf"].as_array()?;
    let with_rest = |one: &Value| {
        let mut all = parts.clone();
        all[place] = one.clone();
        json!({"allOf": all})
    };
    Some(json!({"oneOf": alternatives.iter().map(with_rest).collect::<Vec<_>>()}))
}

fn describe<'a>(
    document: &'a Value,
    schema: &'a Value,
    described: &mut BTreeMap<&'a str, &'a Value>,
    required: &mut Vec<&'a str>,
) {
    let schema = resolve(document, schema);
    described.extend(schema["properties"].as_object().into_iter().flatten().map(|(name, of)| (name.as_str(), of)));
    required.extend(schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str));
    for part in schema["allOf"].as_array().into_iter().flatten() {
        describe(document, part, described, required);
    }
}
