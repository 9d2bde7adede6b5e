import { type FaultRule, garbageKinds, refusalKinds, retryAfterForms, wrongUsageKinds } from './faults.ts'
import { isRecord } from './json.ts'

/** The least that each number may be. */
const numberFields: ReadonlyMap<string, number> = new Map([
  ['retryAfterMs', 0],
  ['hangAfterChunks', 0],
  ['delayFirstByteMs', 0],
  ['delayPerChunkMs', 0],
  ['cutStreamAfterChunks', 0],
  ['endStreamAfterChunks', 0],
  ['errorAfterChunks', 0],
  ['usageMultiplier', 0],
  ['promptMultiplier', 0],
  ['extraCompletionTokens', 0],
  ['overlongTokens', 0],
  ['times', 1],
])
const booleanFields: ReadonlySet<string> = new Set([
  'hang',
  'hangAfterHeaders',
  'cutBeforeHeaders',
  'bills',
  'usageMissing',
  'emptyChoices',
  'contentFilter',
])
const choiceFields: ReadonlyMap<string, readonly string[]> = new Map<string, readonly string[]>([
  ['garbage', garbageKinds],
  ['usageWrong', wrongUsageKinds],
  ['retryAfterAs', retryAfterForms],
])
const refusals: ReadonlySet<string> = new Set(refusalKinds)

/** Reads one rule or a list of them; the error names the field that is wrong. */
export function parseFaultRules(value: unknown): readonly FaultRule[] {
  return (Array.isArray(value) ? value : [value]).map(parseRule)
}

function parseRule(value: unknown): FaultRule {
  if (!isRecord(value)) throw new TypeError('a fault rule must be an object')
  const rule: Record<string, unknown> = {}
  for (const [name, field] of Object.entries(value)) rule[name] = parseField(name, field)
  return rule
}

function parseField(name: string, value: unknown): unknown {
  const least = numberFields.get(name)
  if (least !== undefined) {
    if (typeof value === 'number' && Number.isFinite(value) && value >= least) return value
    throw new TypeError(`${name} must be a number of at least ${least}`)
  }
  if (booleanFields.has(name)) {
    if (typeof value === 'boolean') return value
    throw new TypeError(`${name} must be true or false`)
  }
  if (refusals.has(name)) {
    const everyNth = isRecord(value) ? (value['everyNth'] ?? 1) : value === true ? 1 : null
    if (typeof everyNth === 'number' && Number.isInteger(everyNth) && everyNth >= 1) return { everyNth }
    throw new TypeError(`${name} must be true or { "everyNth": n }`)
  }
  const choices = choiceFields.get(name)
  if (choices !== undefined) {
    if (typeof value === 'string' && choices.includes(value)) return value
    throw new TypeError(`${name} must be one of ${choices.join(', ')}`)
  }
  if (name === 'matching' && typeof value === 'string') return value
  throw new TypeError(`unknown or invalid fault field: ${name}`)
}
