// Random JSON schemas whose values are short.
const words = ['name', 'size', 'tags', 'kind', 'note', 'é "x"', 'parts', 'id']

/** Returns a schema. random: as randomNumbers(); depth: of further objects and lists. */
export function randomSchema(random, depth = 2) {
  const below = (n) => Math.floor(random() * n)
  const one = (list) => list[below(list.length)]
  const bounds = (low, high) => {
    const a = low + below(high - low + 1), b = a + below(high - low + 1)
    return [a, b]
  }
  const scalar = () => one([
    () => ({ type: 'boolean' }),
    () => ({ type: 'null' }),
    () => ({ enum: ['red', 2, null, { a: [1] }] }),
    () => ({ const: 'fixed é' }),
    () => { const [minimum, maximum] = bounds(-300, 4000); return { type: 'integer', minimum, maximum } },
    () => { const [minimum, maximum] = bounds(-20, 30); return { type: 'number', minimum: minimum + 0.5, maximum: maximum + 1 } },
    () => ({ type: 'integer', exclusiveMinimum: -5, exclusiveMaximum: 100 }),
    () => ({ type: 'string', minLength: below(3), maxLength: 3 + below(6) }),
    () => ({ type: 'string', pattern: one(['^[a-f]{2,5}$', '^\\d{3}-\\d{2}$', '^(yes|no|"maybe")$', '^\\w{1,4}[.!?]$']) }),
    () => ({ type: ['string', 'null'], maxLength: 4 }),
  ])()
  if (depth === 0) return scalar()
  return one([
    scalar,
    () => {
      const properties = {}, required = []
      for (let n = 1 + below(4); n > 0; --n) {
        const name = one(words)
        properties[name] = randomSchema(random, depth - 1)
        if (random() < 0.7 && !required.includes(name)) required.push(name)
      }
      return { type: 'object', properties, required, additionalProperties: false }
    },
    () => { const [minItems, maxItems] = bounds(0, 2); return { type: 'array', items: randomSchema(random, depth - 1), minItems, maxItems } },
    () => ({ anyOf: [randomSchema(random, depth - 1), randomSchema(random, depth - 1)] }),
    () => ({ type: 'array', prefixItems: [randomSchema(random, depth - 1), scalar()], items: false, minItems: 2 }),
    () => ({ $ref: '#/$defs/own', $defs: { own: scalar() } }),
  ].slice(depth === 2 ? 1 : 0, depth === 2 ? 6 : 5))()
}
