import { z } from 'zod'

const part = z.enum(['up', 'down'])

/** `degraded`: requests are answered, and workflows are started later. */
export const healthSchema = z
  .object({ status: z.enum(['ok', 'degraded', 'down']), database: part, temporal: part })
  .meta({ id: 'Health' })
