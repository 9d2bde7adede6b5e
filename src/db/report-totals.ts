import type { Report } from '#contracts/report.ts'
import { foldPocket, spendOf, sum, type AttemptSums } from '#domain/journal.ts'
import { toAmount } from '#domain/money.ts'
import { attemptsByMoney, type AttemptMoney } from './attempt-money.ts'
import type { RunEntry } from './journal.ts'

/** The labels are an attempt's last ones: a correction turns what was unknown into what is known. */
export function totalsOf(journal: readonly RunEntry[], attempts: AttemptMoney): Report['totals'] {
  const byMoney = attemptsByMoney(attempts)
  return [...Map.groupBy(journal, (entry) => entry.money)].map(([kind, entries]) => {
    const { balanceClass, currency } = firstOf(entries)
    const own = byMoney.get(kind) ?? []
    const labelled = (matches: (attempt: AttemptSums) => boolean) =>
      toAmount(sum(own.filter(matches).map((attempt) => attempt.charged)), currency)
    return {
      balanceClass,
      currency,
      spent: toAmount(sum(entries.map(spendOf)), currency),
      useful: labelled((attempt) => attempt.use === 'useful'),
      wasted: labelled((attempt) => attempt.use === 'wasted'),
      billed: labelled((attempt) => attempt.certainty === 'billed'),
      estimated: labelled((attempt) => attempt.certainty === 'estimated'),
      unknown: labelled((attempt) => attempt.certainty === 'unknown'),
      held: toAmount(foldPocket(entries).held, currency),
    }
  })
}

/** Of a group, which has one. */
export function firstOf(entries: readonly RunEntry[]): RunEntry {
  const [entry] = entries
  if (!entry) throw new Error('a group has an entry')
  return entry
}
