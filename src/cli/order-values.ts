import { BALANCE_CLASSES, type BalanceClass } from '#contracts/names.ts'
import { parseDecimal } from '#domain/money.ts'
import { UsageError } from './arguments.ts'

const CURRENCY = 'USD'

/** The pockets of an envelope, as they are ordered. */
export type Pockets = { balanceClass: BalanceClass; amount: { amount: string; currency: string } }[]

/**
 * The envelope of `--budget`, or of `--direct` and `--credit`; undefined when none of them is given.
 *
 * @throws UsageError
 */
export function readPockets(
  values: { readonly budget?: string; readonly direct?: string; readonly credit?: string },
  usage: string,
): Pockets | undefined {
  const { budget, direct = budget, credit } = values
  if (budget !== undefined && (values.direct ?? credit) !== undefined) {
    throw new UsageError('give either --budget, or --direct and --credit.', usage)
  }
  const amounts = { direct, credit }
  const pockets = BALANCE_CLASSES.flatMap((balanceClass) => {
    const amount = amounts[balanceClass]
    return amount === undefined ? [] : [{ balanceClass, amount: amountOf(amount, usage) }]
  })
  return pockets.length > 0 ? pockets : undefined
}

/** @throws UsageError */
function amountOf(text: string, usage: string): { readonly amount: string; readonly currency: string } {
  if (isAmount(text)) return { amount: text, currency: CURRENCY }
  throw new UsageError(`${text} is not an amount: write a decimal with at most nine decimals, such as 0.05.`, usage)
}

export function isAmount(text: string): boolean {
  const parsed = parseDecimal(text)
  return parsed.ok && parsed.nano > 0n
}

/** @throws UsageError */
export function readCount(option: string, text: string | undefined, usage: string): number | undefined {
  if (text === undefined) return undefined
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new UsageError(`${option} is a whole number, such as 200.`, usage)
  return Number(text)
}

/** @throws UsageError */
export function readThresholds(text: string | undefined, usage: string): readonly number[] | undefined {
  return text?.split(',').map((each) => readCount('--threshold', each.trim(), usage) ?? 0)
}
