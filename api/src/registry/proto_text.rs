//! A compiled file descriptor → the text of a `.proto` file, because some serializers send only the former.

use protox::prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use protox::prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, ServiceDescriptorProto,
};

/// Field numbers end here; a range up to it is written `to max`.
const NUMBER_MAX: i32 = 536_870_911;

/// The text. Options that change nothing on the wire are left out, except for `deprecated` and `json_name`.
pub fn print(file: &FileDescriptorProto) -> String {
    let mut printer = Printer { out: String::new(), depth: 0, proto3: file.syntax() == "proto3" };
    let syntax = if file.syntax().is_empty() { "proto2" } else { file.syntax() };
    printer.line(&format!("syntax = \"{syntax}\";"));
    if !file.package().is_empty() {
        printer.line(&format!("package {};", file.package()));
    }
    for (at, name) in (0..).zip(&file.dependency) {
        let word = if file.public_dependency.contains(&at) { "public " } else { "" };
        printer.line(&format!("import {word}\"{name}\";"));
    }
    file.message_type.iter().for_each(|message| printer.message(message));
    file.enum_type.iter().for_each(|list| printer.list(list));
    file.service.iter().for_each(|service| printer.service(service));
    printer.out
}

struct Printer {
    out: String,
    depth: usize,
    proto3: bool,
}

impl Printer {
    fn line(&mut self, text: &str) {
        self.out.push_str(&"  ".repeat(self.depth));
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn open(&mut self, head: &str) {
        self.line(&format!("{head} {{"));
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.line("}");
    }

    fn message(&mut self, message: &DescriptorProto) {
        self.open(&format!("message {}", message.name()));
        let is_map_entry = |nested: &DescriptorProto| nested.options.as_ref().is_some_and(|o| o.map_entry());
        message.nested_type.iter().filter(|nested| !is_map_entry(nested)).for_each(|nested| self.message(nested));
        message.enum_type.iter().for_each(|list| self.list(list));
        let mut done = Vec::new();
        for field in &message.field {
            match field.oneof_index.filter(|_| !field.proto3_optional()) {
                None => self.field(message, field, true),
                Some(index) if done.contains(&index) => {}
                Some(index) => {
                    done.push(index);
                    let name = usize::try_from(index).ok().and_then(|index| message.oneof_decl.get(index));
                    self.open(&format!("oneof {}", name.map_or("choice", |oneof| oneof.name())));
                    let members = message.field.iter().filter(|field| field.oneof_index == Some(index));
                    members.for_each(|field| self.field(message, field, false));
                    self.close();
                }
            }
        }
        for range in &message.extension_range {
            self.line(&format!("extensions {};", span(range.start(), range.end() - 1, NUMBER_MAX)));
        }
        for range in &message.reserved_range {
            self.line(&format!("reserved {};", span(range.start(), range.end() - 1, NUMBER_MAX)));
        }
        for name in &message.reserved_name {
            self.line(&format!("reserved \"{name}\";"));
        }
        self.close();
    }

    fn field(&mut self, message: &DescriptorProto, field: &FieldDescriptorProto, labelled: bool) {
        let entry = message.nested_type.iter().find(|nested| {
            nested.options.as_ref().is_some_and(|options| options.map_entry())
                && field.type_name().rsplit('.').next() == nested.name.as_deref()
        });
        let kind = match entry.map(|entry| entry.field.as_slice()) {
            Some([key, value]) => format!("map<{}, {}>", type_name(key), type_name(value)),
            _ => format!("{}{}", self.label(field, labelled), type_name(field)),
        };
        let mut options = Vec::new();
        if let Some(default) = &field.default_value {
            let quoted = matches!(field.r#type(), Type::String | Type::Bytes);
            let text =
                if field.r#type() == Type::Bytes { default.clone() } else { default.escape_default().to_string() };
            options.push(if quoted { format!("default = \"{text}\"") } else { format!("default = {default}") });
        }
        if let Some(set) = &field.options {
            options.extend(set.packed.map(|packed| format!("packed = {packed}")));
            options.extend(set.deprecated.map(|deprecated| format!("deprecated = {deprecated}")));
        }
        if field.json_name.as_deref().is_some_and(|name| name != json_name(field.name())) {
            options.push(format!("json_name = \"{}\"", field.json_name().escape_default()));
        }
        let options = if options.is_empty() { String::new() } else { format!(" [{}]", options.join(", ")) };
        self.line(&format!("{kind} {} = {}{options};", field.name(), field.number()));
    }

    fn label(&self, field: &FieldDescriptorProto, labelled: bool) -> &'static str {
        match field.label() {
            Label::Repeated => "repeated ",
            Label::Required => "required ",
            Label::Optional if labelled && (!self.proto3 || field.proto3_optional()) => "optional ",
            Label::Optional => "",
        }
    }

    fn list(&mut self, list: &EnumDescriptorProto) {
        self.open(&format!("enum {}", list.name()));
        if list.options.as_ref().is_some_and(|options| options.allow_alias()) {
            self.line("option allow_alias = true;");
        }
        for value in &list.value {
            self.line(&format!("{} = {};", value.name(), value.number()));
        }
        for range in &list.reserved_range {
            // Here, other than in messages, the end belongs to the range.
            self.line(&format!("reserved {};", span(range.start(), range.end(), i32::MAX)));
        }
        for name in &list.reserved_name {
            self.line(&format!("reserved \"{name}\";"));
        }
        self.close();
    }

    fn service(&mut self, service: &ServiceDescriptorProto) {
        self.open(&format!("service {}", service.name()));
        for method in &service.method {
            let stream = |is: bool| if is { "stream " } else { "" };
            self.line(&format!(
                "rpc {} ({}{}) returns ({}{});",
                method.name(),
                stream(method.client_streaming()),
                method.input_type(),
                stream(method.server_streaming()),
                method.output_type()
            ));
        }
        self.close();
    }
}

fn span(start: i32, end: i32, max: i32) -> String {
    match end {
        end if end == start => start.to_string(),
        end if end >= max => format!("{start} to max"),
        end => format!("{start} to {end}"),
    }
}

fn type_name(field: &FieldDescriptorProto) -> &str {
    match field.r#type() {
        Type::Double => "double",
        Type::Float => "float",
        Type::Int64 => "int64",
        Type::Uint64 => "uint64",
        Type::Int32 => "int32",
        Type::Fixed64 => "fixed64",
        Type::Fixed32 => "fixed32",
        Type::Bool => "bool",
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Uint32 => "uint32",
        Type::Sfixed32 => "sfixed32",
        Type::Sfixed64 => "sfixed64",
        Type::Sint32 => "sint32",
        Type::Sint64 => "sint64",
        Type::Message | Type::Enum | Type::Group => field.type_name(),
    }
}

/// The name that a field has in JSON when none is set.
fn json_name(name: &str) -> String {
    let mut out = String::new();
    let mut capital = false;
    for letter in name.chars() {
        if letter == '_' {
            capital = true;
        } else {
            out.push(if capital { letter.to_ascii_uppercase() } else { letter });
            capital = false;
        }
    }
    out
}
