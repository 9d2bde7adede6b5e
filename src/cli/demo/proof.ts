import { formatNano } from '#domain/money.ts'
import type { AttemptReport, Report } from '#contracts/report.ts'
import { printTable } from '../print-table.ts'
import type { Screen } from '../screen.ts'
import { NOTHING } from '../text-table.ts'
import { readNano } from './ledger-total.ts'
import type { LoggedRequest } from './sandbox-control.ts'
import { type Evidence, requestsOf, type Stage } from './stage.ts'

/** Shows that the report, the journal and the provider counted the same. @throws when they did not */
export async function printProof(stage: Stage, evidence: Evidence): Promise<void> {
  const { report, transferTotal } = evidence
  const reported = formatNano(sumOf(report.totals.map(({ spent }) => spent.amount)))
  if (reported !== transferTotal.total) throw new Error('The report and the ledger differ.')
  const requests = await requestsOf(stage, report)
  stage.screen.line()
  printTable(
    stage.screen,
    [{ title: 'charged, as counted by' }, { title: transferTotal.currency, align: 'decimal' }, { title: '' }],
    [
      ['the report', reported],
      [`the ledger (${report.revision} entries)`, transferTotal.total],
      ...(requests ? billRows(report, requests) : []),
    ],
  )
}

interface Charge extends AttemptReport {
  readonly callKey: string
}

/** What is labelled `billed` is what the provider's own bill says; the other labels are what it could not tell us. */
function billRows(report: Report, requests: readonly LoggedRequest[]): readonly (readonly string[])[] {
  const charges = report.calls
    .flatMap(({ id, attempts }) => attempts.map((attempt): Charge => ({ ...attempt, callKey: id })))
    .filter(({ certainty }) => certainty !== null)
  const billed = charges.filter(({ certainty }) => certainty === 'billed')
  const others = charges.filter(({ certainty }) => certainty !== 'billed')
  const bill = billFor(billed, requests)
  if (bill !== chargeFor(billed)) throw new Error('The provider billed another amount than was booked.')
  const first = ["the provider's own bill", formatNano(bill)]
  if (others.length === 0) return [first]
  const labels = [...new Set(others.map(({ certainty }) => certainty))].join(', ')
  const note = `worst case; the provider billed ${formatNano(billFor(others, requests))} for it, which nobody here could know`
  return [first, [`+ labelled ${labels}`, formatNano(chargeFor(others)), note]]
}

function billFor(charges: readonly Charge[], requests: readonly LoggedRequest[]): bigint {
  const asked = new Set(charges.map(({ callKey, number }) => `${callKey}:${number}`))
  return sumOf(
    requests.filter(({ callKey, attempt }) => asked.has(`${callKey}:${attempt}`)).map(({ billed }) => billed),
  )
}

function chargeFor(charges: readonly Charge[]): bigint {
  return sumOf(charges.map(({ charged }) => charged.amount))
}

function sumOf(amounts: readonly string[]): bigint {
  return amounts.reduce((sum, amount) => sum + readNano(amount), 0n)
}

/** How often the provider was asked for each call, from its own log. */
export function printRequests(screen: Screen, report: Report, requests: readonly LoggedRequest[]): void {
  const rows = report.calls.map(({ id, path }) => {
    const own = requests.filter(({ callKey }) => callKey === id)
    const begun = own.filter((request) => request.begun).length
    const refused = own.length - begun
    return [path, String(begun), refused === 0 ? NOTHING : String(refused)]
  })
  printTable(
    screen,
    [
      { title: 'call' },
      { title: 'times the provider began to answer', align: 'right' },
      { title: 'refused by it (429)', align: 'right' },
    ],
    rows,
  )
}
