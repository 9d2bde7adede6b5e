import { formatNano, parseDecimal } from '#domain/money.ts'
import type { TransferView } from '#contracts/api-run.ts'

/** What the movements of a run charged, added up without looking at its report. */
export interface TransferTotal {
  readonly total: string
  readonly currency: string
  readonly byBalance: readonly { readonly balanceClass: string; readonly currency: string; readonly amount: string }[]
}

const CHARGES: ReadonlySet<string> = new Set(['capture', 'overage', 'correction'])
/** The counterparty of every charge. */
const PROVIDER = 'provider_cost'

/** Adds up captures, overages and corrections: towards the provider they count, away from it they count back. */
export function totalOfTransfers(transfers: readonly TransferView[]): TransferTotal {
  const classes = classOfAttempts(transfers)
  const sums = new Map<string, bigint>()
  for (const transfer of transfers) {
    if (!CHARGES.has(transfer.code)) continue
    const nano = readNano(transfer.amount.amount)
    const balance = `${classes.get(attemptOf(transfer)) ?? 'debt'} ${transfer.amount.currency}`
    sums.set(balance, (sums.get(balance) ?? 0n) + (transfer.credit.kind === PROVIDER ? nano : -nano))
  }
  const byBalance = Array.from(sums, ([balance, nano]) => {
    const [balanceClass = '', currency = ''] = balance.split(' ')
    return { balanceClass, currency, amount: formatNano(nano) }
  })
  const currencies = new Set(byBalance.map(({ currency }) => currency))
  if (currencies.size > 1) throw new Error('The demo pays in one currency.')
  const [currency = 'USD'] = currencies
  return { total: formatNano([...sums.values()].reduce((sum, nano) => sum + nano, 0n)), currency, byBalance }
}

/** An overage may be paid by the project's debt, which has no balance class: its attempt's hold says whose it is. */
function classOfAttempts(transfers: readonly TransferView[]): ReadonlyMap<string, string> {
  return new Map(
    transfers.flatMap((transfer) =>
      transfer.code === 'hold' && transfer.debit.balanceClass !== null
        ? [[attemptOf(transfer), transfer.debit.balanceClass] as const]
        : [],
    ),
  )
}

function attemptOf({ callId, attempt }: TransferView): string {
  return `${callId}:${attempt}`
}

/** @throws when the text is no amount, which an API that keeps its contract does not send */
export function readNano(text: string): bigint {
  const parsed = parseDecimal(text)
  if (!parsed.ok) throw new Error(`${text} is not an amount.`)
  return parsed.nano
}
