import { z } from 'zod'

/** Text for a column of Postgres, which takes every character but U+0000. */
export const storableText = z.string().refine((text) => !text.includes('\0'), 'holds U+0000, which cannot be stored')
