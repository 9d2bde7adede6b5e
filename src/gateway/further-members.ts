import { PARAMETER_NAME, UNPRICED_PARAMETERS } from '#contracts/parameters.ts'
import { Refusal } from './refusal.ts'

/** What becomes of members of a request that its surface does not read. */
export interface MemberRules {
  /** What the surface reads. */
  readonly read: Readonly<Record<string, unknown>>
  /** Refused, with the reason, beside all that has no price: they need what is not here. */
  readonly refused: Readonly<Record<string, string>>
  /** Refused unless they say one of these: it is what happens without them. */
  readonly only: Readonly<Record<string, readonly unknown[]>>
  /** Dropped: they change no answer and no price. */
  readonly dropped: readonly string[]
}

/** Further members that one request may have. */
const MOST_PARAMETERS = 64

/** All that is handed on as it is: routes say whether they take it. @throws Refusal that names a member */
export function furtherMembers(
  request: Readonly<Record<string, unknown>>,
  rules: MemberRules,
): Readonly<Record<string, unknown>> {
  const found = Object.entries(request).filter(
    ([param, value]) => value != null && !Object.hasOwn(rules.read, param) && !rules.dropped.includes(param),
  )
  const parameters = found.filter(([param, value]) => isHandedOn(param, value, rules))
  const unfit = parameters.find(([param], index) => !PARAMETER_NAME.test(param) || index === MOST_PARAMETERS)
  if (!unfit) return Object.fromEntries(parameters)
  const message = `No more than ${MOST_PARAMETERS} members, with names of letters, digits and _.`
  throw new Refusal('invalid_request', message, { param: unfit[0].slice(0, 100) })
}

/** False for what asks for nothing, or says only what happens anyway. @throws Refusal */
function isHandedOn(param: string, value: unknown, { refused, only }: MemberRules): boolean {
  const why = ownOf(refused, param) ?? ownOf(UNPRICED_PARAMETERS, param)
  if (why !== undefined) {
    if (value === false || (Array.isArray(value) && value.length === 0)) return false
    throw new Refusal('unsupported_parameter', why, { param })
  }
  const allowed = ownOf(only, param)
  if (!allowed) return true
  if (allowed.some((each) => JSON.stringify(each) === JSON.stringify(value))) return false
  const words = allowed.map((each) => JSON.stringify(each)).join(' or ')
  throw new Refusal('unsupported_parameter', `${param} can be ${words} here.`, { param })
}

function ownOf<Value>(record: Readonly<Record<string, Value>>, name: string): Value | undefined {
  return Object.hasOwn(record, name) ? record[name] : undefined
}
