import { Problem } from '#contracts/codes.ts'

/** What the functions of the ledger raise when the database's clock stands behind the last movement of an account. */
const CLOCK_BACKWARDS = 'PU001'

/** Throws what a statement has failed with: a clock that went backwards by its name, everything else as it is. */
export function namingTheClock(error: unknown): never {
  if (error instanceof Error && 'code' in error && error.code === CLOCK_BACKWARDS)
    throw new Problem('clock_backwards', error.message, { remedy: 'Set the clock of the database right.' })
  throw error
}
