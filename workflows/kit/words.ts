import type { MoneyStop } from '#contracts/activities.ts'
import { rootCause } from '@temporalio/workflow'

/** A detail is a sentence; a stack of causes is not. */
const MAX_DETAIL_LENGTH = 500

export function messageOf(error: unknown): string {
  const text = error instanceof Error ? (rootCause(error) ?? error.message) : String(error)
  return text.slice(0, MAX_DETAIL_LENGTH)
}

export function inWords(stop: MoneyStop): string {
  return `${stop.limit}: the call needs ${stop.needed} ${stop.currency}, ${stop.free} ${stop.currency} are free.`
}
