import type { Place } from './journal-range.ts'
import { foldAt, type Fold, type JournalFold } from './verify-fold.ts'
import type { SealedUpTo } from './verify-seals.ts'

/** Where a verification that found nothing wrong has come to: the next one can begin there. Kept outside the database. */
export interface VerifyState {
  readonly upTo: Place
  readonly sealedUpTo: SealedUpTo
  readonly accounts: ReadonlyMap<string, Fold>
  /** Sum of hashes over the holds that were open. */
  readonly holds: bigint
  readonly carved: ReadonlyMap<string, bigint>
  readonly returned: ReadonlyMap<string, bigint>
}

const VERSION = 2

export function stateOf(fold: JournalFold, upTo: { readonly place: Place; readonly sealed: SealedUpTo }): VerifyState {
  const isOfChild = ([key]: readonly [string, bigint]): boolean =>
    fold.carved.has(key.split(' ').toReversed().join(' '))
  return {
    upTo: upTo.place,
    sealedUpTo: upTo.sealed,
    accounts: new Map(
      [...fold.accounts].map(([id, { count, posted, pending }]) => [
        id,
        foldAt({ version: count, balance: posted, held: pending }),
      ]),
    ),
    holds: fold.holds,
    carved: fold.carved,
    returned: new Map([...fold.returned].filter(isOfChild)),
  }
}

/** As JSON text; all numbers in it are decimal text. */
export function writeState(state: VerifyState): string {
  const numbers = (map: ReadonlyMap<string, bigint>) => [...map].map(([key, value]) => [key, value.toString()])
  return JSON.stringify({
    version: VERSION,
    xid: state.upTo.xid.toString(),
    seq: state.upTo.seq.toString(),
    height: state.sealedUpTo.height.toString(),
    hash: state.sealedUpTo.hash,
    signedFrom: state.sealedUpTo.signedFrom.toString(),
    holds: state.holds.toString(),
    carved: numbers(state.carved),
    returned: numbers(state.returned),
    accounts: [...state.accounts].map(([id, { count, posted, pending }]) => [id, `${count} ${posted} ${pending}`]),
  })
}

/** @throws when the text is not what `writeState` made */
export function readState(text: string): VerifyState {
  const parsed: unknown = JSON.parse(text)
  if (typeof parsed !== 'object' || parsed === null) throw new Error('it is no object')
  const fields = new Map<string, unknown>(Object.entries(parsed))
  if (fields.get('version') !== VERSION) throw new Error('it was written by another version')
  const number = (name: string) => BigInt(String(fields.get(name)))
  const numbers = (name: string) => new Map(pairsIn(fields.get(name)).map(([key, value]) => [key, BigInt(value)]))
  return {
    upTo: { xid: number('xid'), seq: number('seq') },
    sealedUpTo: { height: number('height'), hash: String(fields.get('hash')), signedFrom: number('signedFrom') },
    holds: number('holds'),
    carved: numbers('carved'),
    returned: numbers('returned'),
    accounts: new Map(pairsIn(fields.get('accounts')).map(([id, value]) => [id, readFold(value)])),
  }
}

function pairsIn(value: unknown): readonly (readonly [string, string])[] {
  if (!Array.isArray(value)) throw new Error('a list is missing in it')
  return value.map((pair: unknown) => {
    if (!Array.isArray(pair) || pair.length !== 2) throw new Error('a pair in it is none')
    return [String(pair[0]), String(pair[1])]
  })
}

function readFold(text: string): Fold {
  const [version = '', balance = '', held = ''] = text.split(' ')
  return foldAt({ version: BigInt(version), balance: BigInt(balance), held: BigInt(held) })
}
