import { Refusal } from './refusal.ts'

/** Deeper than any schema of a tool; deep enough to end a recursion over it, thousands of levels are. */
const MOST_LEVELS = 100

/** @throws Refusal for a body that is nested deeper than anything that is meant */
export function refuseDeep(body: unknown): void {
  const levels: unknown[][] = [[body]]
  while (levels.length > 0) {
    const each = levels.at(-1)?.pop()
    if (each === undefined) {
      if (levels.at(-1)?.length === 0) levels.pop()
      continue
    }
    if (typeof each !== 'object' || each === null) continue
    if (levels.length > MOST_LEVELS) {
      throw new Refusal('invalid_request', `The body is nested deeper than ${MOST_LEVELS} levels.`)
    }
    levels.push(Object.values(each))
  }
}
