import { startTheme } from "./theme.js";

// Draws openapi.json; nothing is known of the API here.

function make(tag, text = "", className = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className });
}

function table(rows) {
  const made = make("table");
  for (const [name, what] of rows) {
    const row = made.insertRow();
    row.insertCell().append(make("code", name));
    row.insertCell().textContent = what;
  }
  return made;
}

function told(schema) {
  const range = [
    ["at least", schema.minimum],
    ["at most", schema.maximum],
    ["default", schema.default],
  ].filter(([, value]) => value !== undefined && value !== null);
  const options = schema.anyOf?.map((option) => option.type) ?? [schema.type ?? "text"];
  const kind = schema.enum?.join(" or ") ?? options.join(" or ");
  const deep = schema.anyOf?.find((option) => option.minimum !== undefined);
  const more = deep ? [`${deep.minimum} to ${deep.maximum}`] : [];
  const facts = [kind, ...more, ...range.map((pair) => pair.join(" "))].join(", ");
  return schema.description ? `${schema.description} (${facts})` : facts;
}

function body(operation, schemas) {
  const content = operation.requestBody?.content ?? {};
  const reference = content["application/json"]?.schema?.$ref;
  if (!reference) return Object.keys(content).map((kind) => ["body", kind]);
  const properties = schemas[reference.split("/").at(-1)].properties;
  return Object.entries(properties).map(([name, schema]) => [name, told(schema)]);
}

function article(path, method, operation, schemas) {
  const made = make("article");
  const title = make("h3");
  title.append(make("span", method.toUpperCase(), "method"), make("code", path));
  made.append(title, make("p", operation.summary));
  const rows = [
    ...(operation.parameters ?? []).map((known) => [known.name, told({ ...known.schema })]),
    ...body(operation, schemas),
    ...Object.entries(operation.responses).map(([status, answer]) => {
      const kinds = status === "200" ? ` ${Object.keys(answer.content).join(" or ")}` : "";
      return [status, answer.description + kinds];
    }),
  ];
  made.append(table(rows));
  return made;
}

startTheme();
const room = document.querySelector("#reference");
const description = await (await fetch("/api/openapi.json")).json();
room.replaceChildren(make("h2", "API"), make("p", description.info.description));
for (const [path, methods] of Object.entries(description.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    room.append(article(path, method, operation, description.components.schemas));
  }
}
