import { readFile } from 'node:fs/promises'
import { sql } from 'kysely'
import type { Migration, MigrationProvider } from 'kysely/migration'

/** Ordered and append-only: a migration that has landed is never edited. */
const files = [
  '0001_tenants',
  '0002_ledger',
  '0003_runs_and_calls',
  '0004_corpus',
  '0005_ledger_tables',
  '0006_post',
  '0007_wallets',
  '0008_envelopes',
  '0009_limits',
  '0010_seals',
  '0011_statements',
  '0012_corrections',
  '0013_hot_path',
  '0014_late_money_and_replays',
  '0015_opened_with_its_hold',
  '0016_prices',
  '0017_routes',
  '0018_look_ups',
  '0019_lifecycle',
  '0020_datasets',
  '0021_thresholds',
  '0022_schedules',
  '0023_shared_remainders',
  '0024_threshold_locks',
  '0025_corrections_told_again',
  '0026_keys',
  '0027_external_runs',
  '0028_webhooks',
  '0029_deposit_requests',
  '0030_storage',
  '0032_row_security',
  '0033_operators',
  '0034_listings',
  '0035_money_within_reach',
  '0036_secrets',
  '0037_policy_estimates',
  '0038_names_and_turns',
  '0039_storage_and_secrets',
  '0041_reach_planned_once',
  '0042_lone_deposits',
  '0043_limit_thresholds',
  '0044_what_never_fits',
] as const

function fromFile(name: string): Migration {
  return {
    async up(db) {
      const text = await readFile(new URL(`./${name}.sql`, import.meta.url), 'utf8')
      await sql.raw(text).execute(db)
    },
  }
}

export const migrations: MigrationProvider = {
  getMigrations: () => Promise.resolve(Object.fromEntries(files.map((name) => [name, fromFile(name)]))),
}
