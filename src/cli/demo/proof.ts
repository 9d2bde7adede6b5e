import { formatNano } from '#domain/money.ts'
import type { Report } from '#contracts/report.ts'
import type { Screen } from '../screen.ts'
import { formatTable, NOTHING } from '../text-table.ts'
import { readNano } from './ledger-total.ts'
import type { LoggedRequest } from './sandbox-control.ts'
import { type Evidence, requestsOf, type Stage } from './stage.ts'

/** Shows that the report, the journal and the provider counted the same. @throws when they did not */
export async function printProof(stage: Stage, evidence: Evidence): Promise<void> {
  const { report, transferTotal } = evidence
  const { screen } = stage
  const reported = formatNano(report.totals.reduce((sum, { spent }) => sum + readNano(spent.amount), 0n))
  screen.line()
  screen.line(`  report                       ${reported} ${transferTotal.currency}`)
  screen.line(
    `  its ${String(report.revision).padStart(3)} ledger entries       ${transferTotal.total} ${transferTotal.currency}`,
  )
  if (reported !== transferTotal.total) throw new Error('The report and the ledger differ.')
  const requests = await requestsOf(stage, report)
  if (requests) printBill(screen, report, requests)
}

/** Attempts that are labelled `billed` cost what the provider's own bill says; the others are what it cannot tell us. */
function printBill(screen: Screen, report: Report, requests: readonly LoggedRequest[]): void {
  const attempts = report.calls.flatMap(({ id, attempts: tries }) =>
    tries.map((attempt) => ({ ...attempt, callKey: id })),
  )
  const labelled = attempts.filter(({ certainty }) => certainty !== null)
  const billed = labelled.filter(({ certainty }) => certainty === 'billed')
  const billFor = (some: typeof attempts): bigint =>
    requests
      .filter((request) =>
        some.some(({ callKey, number }) => callKey === request.callKey && number === request.attempt),
      )
      .reduce((sum, request) => sum + readNano(request.billed), 0n)
  const charged = (some: typeof attempts): bigint =>
    some.reduce((sum, { charged: { amount } }) => sum + readNano(amount), 0n)
  const others = labelled.filter(({ certainty }) => certainty !== 'billed')
  screen.line(`  the provider's own bill      ${formatNano(billFor(billed))} USD`)
  if (others.length > 0) {
    const labels = [...new Set(others.map(({ certainty }) => certainty))].join(', ')
    screen.line(
      `  + labelled ${labels.padEnd(18)}${formatNano(charged(others))} USD  (the provider billed ${formatNano(billFor(others))})`,
    )
  }
  if (billFor(billed) !== charged(billed)) throw new Error('The provider billed another amount than was booked.')
}

/** How often the provider was asked for each call, from its own log. */
export function printRequests(screen: Screen, report: Report, requests: readonly LoggedRequest[]): void {
  const rows = report.calls.map(({ id, path }) => {
    const own = requests.filter(({ callKey }) => callKey === id)
    const begun = own.filter((request) => request.begun).length
    const refused = own.length - begun
    return [path, String(begun), refused === 0 ? NOTHING : String(refused)]
  })
  const columns = [
    { title: 'call' },
    { title: 'times the provider began to answer', align: 'right' },
    { title: 'refused by it (429)', align: 'right' },
  ] as const
  const [title = '', ...lines] = formatTable(columns, rows)
  screen.line(screen.paint('dim', `  ${title}`))
  for (const line of lines) screen.line(`  ${line}`)
}
