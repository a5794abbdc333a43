// What /openapi.json says, in the words of the page: routes, types, and the requests that they take.

const PREFIX = "/collections/{collection}/";

// Every route, once: those of a named collection are the default one's with a name, so they are its `named`.
// tasks: what the served models do, or null where that is not known; routes that no model serves are left out.
export function routesOf(description, tasks) {
  const found = [];
  for (const [path, methods] of Object.entries(description.paths)) {
    if (path.startsWith(PREFIX)) continue;
    for (const [method, operation] of Object.entries(methods)) {
      const named = description.paths[PREFIX.slice(0, -1) + path]?.[method];
      found.push({ method: method.toUpperCase(), path, operation, named: Boolean(named), id: operation.operationId, tag: operation.tags[0] });
    }
  }
  return tasks ? found.filter(({ path }) => served(path, tasks)) : found;
}

const TASK_OF = [[/rerank|ranking|score|predict/, "score"], [/embed_sparse/, "sparse"], [/embed_all/, "token_vectors"]];

function served(path, tasks) {
  const task = TASK_OF.find(([pattern]) => pattern.test(path))?.[1];
  return !task || tasks.has(task);
}

export const typeName = (reference) => reference.split("/").pop().split(".").slice(-2).join(".");

// A schema in a few words: what TypeScript would call it.
export function typeOf(schema) {
  if (schema.$ref) return typeName(schema.$ref);
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.prefixItems) return "[" + schema.prefixItems.map(typeOf).join(", ") + "]";
  if (schema.type === "array") return schema.items ? "(" + typeOf(schema.items) + ")[]" : "any[]";
  return schema.type || "any";
}

export function limitsOf(schema) {
  const said = [];
  if (schema.minimum !== undefined) said.push("≥ " + schema.minimum);
  // Beyond this JavaScript rounds whole numbers.
  if (schema.maximum !== undefined && schema.maximum <= Number.MAX_SAFE_INTEGER) said.push("≤ " + schema.maximum);
  if (schema.pattern) said.push(schema.pattern);
  if (schema.default !== undefined && schema.default !== null) said.push("= " + JSON.stringify(schema.default));
  return said.join("  ");
}

// Every type that a schema speaks of, each once.
export function typesIn(schema, description, found = new Map()) {
  if (schema === null || typeof schema !== "object") return found;
  if (schema.$ref) {
    if (found.has(schema.$ref)) return found;
    const type = description.components.schemas[schema.$ref.split("/").pop()];
    found.set(schema.$ref, type);
    return typesIn(type.properties, description, found);
  }
  for (const inner of Object.values(schema)) typesIn(inner, description, found);
  return found;
}

export const contentOf = (said) => (said?.content ? Object.entries(said.content)[0] : [null, null]);

// The kind of the request's body, and its examples: JSON, or a file.
export const kindOf = ({ operation }) => Object.keys(operation.requestBody?.content || {})[0];

export const examplesOf = (route) => Object.entries(route.operation.requestBody?.content?.[kindOf(route)]?.examples || {});

export const scopeOf = ({ operation }) => /Needs the scope `(\w+)`/.exec(operation.description || "")?.[1] || (operation.security ? "key" : "");
