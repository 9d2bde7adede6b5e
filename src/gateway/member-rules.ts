import { Refusal } from './refusal.ts'

/** Members of a request that are refused rather than dropped. */
export interface MemberRules {
  /** Whatever they say, with the reason. */
  readonly refused: Readonly<Record<string, string>>
  /** Unless they say one of these. */
  readonly only: Readonly<Record<string, readonly unknown[]>>
}

/** Null, false and nothing ask for nothing. @throws Refusal that names the member */
export function refuseMembers(request: Readonly<Record<string, unknown>>, { refused, only }: MemberRules): void {
  for (const [param, why] of Object.entries(refused)) {
    const value = request[param]
    const isEmpty = value == null || value === false || (Array.isArray(value) && value.length === 0)
    if (!isEmpty) throw new Refusal('unsupported_parameter', why, { param })
  }
  for (const [param, allowed] of Object.entries(only)) {
    const value = request[param]
    if (value == null || allowed.some((each) => JSON.stringify(each) === JSON.stringify(value))) continue
    const words = allowed.map((each) => JSON.stringify(each)).join(' or ')
    throw new Refusal('unsupported_parameter', `${param} can be ${words} here.`, { param })
  }
}
