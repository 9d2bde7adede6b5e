import { foldAttempt, type AttemptSums } from '#domain/journal.ts'
import type { RunEntry } from './journal.ts'

/** What the journal says of each attempt, by `call:number`; entries of no attempt are together under one key. */
export type AttemptMoney = ReadonlyMap<string, AttemptOfMoney>

export interface AttemptOfMoney {
  readonly entries: readonly RunEntry[]
  readonly sums: AttemptSums
}

export function attemptMoney(journal: readonly RunEntry[]): AttemptMoney {
  const groups = Map.groupBy(journal, ({ callId, attempt }) => `${callId}:${attempt}`)
  return new Map([...groups].map(([key, entries]) => [key, { entries, sums: foldAttempt(entries) }]))
}

/** The sums of attempts by the kind of money that paid them; one that was paid by two is in both, with its share. */
export function attemptsByMoney(attempts: AttemptMoney): ReadonlyMap<string, readonly AttemptSums[]> {
  const byMoney = new Map<string, AttemptSums[]>()
  const add = (money: string, sums: AttemptSums): void => {
    const known = byMoney.get(money)
    if (known) known.push(sums)
    else byMoney.set(money, [sums])
  }
  for (const { entries, sums } of attempts.values()) {
    const [first] = entries
    if (first && entries.every(({ money }) => money === first.money)) add(first.money, sums)
    else for (const [money, own] of Map.groupBy(entries, (entry) => entry.money)) add(money, foldAttempt(own))
  }
  return byMoney
}
